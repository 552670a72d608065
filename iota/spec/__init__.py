"""The RunSpec, which fixes what a run computes, and the canonical form that ids are computed from.

`versions` has versions of documents; `canonical` makes every JSON that is hashed or signed. `spec_fields`,
`draft` and `contradictions` are for what makes a spec; import them as modules.
"""

from iota.spec.canonical import Frozen, canonical_json, json_digest
from iota.spec.fields import MAX_INTEGER, Count, Fraction, Hex32, Listed, Positive, Small
from iota.spec.parts import (
    AuditSpec,
    BoundarySpec,
    DataSpec,
    Decay,
    GradientSums,
    InitSpec,
    LayoutSpec,
    ModelSpec,
    Moments,
    OptimizerKind,
    OptimizerSpec,
    OuterCodec,
    OuterSpec,
    Overlap,
    Pipeline,
    Precision,
    RopeScaling,
    ScheduleSpec,
    StateRule,
    WireDtype,
)
from iota.spec.run_spec import SPEC_VERSION, RunSpec
from iota.spec.versions import Since, Versioned, added_fields

__all__ = [
    "MAX_INTEGER",
    "SPEC_VERSION",
    "AuditSpec",
    "BoundarySpec",
    "Count",
    "DataSpec",
    "Decay",
    "Fraction",
    "Frozen",
    "GradientSums",
    "Hex32",
    "InitSpec",
    "LayoutSpec",
    "Listed",
    "ModelSpec",
    "Moments",
    "OptimizerKind",
    "OptimizerSpec",
    "OuterCodec",
    "OuterSpec",
    "Overlap",
    "Pipeline",
    "Positive",
    "Precision",
    "RopeScaling",
    "RunSpec",
    "ScheduleSpec",
    "Since",
    "Small",
    "StateRule",
    "Versioned",
    "WireDtype",
    "added_fields",
    "canonical_json",
    "json_digest",
]
