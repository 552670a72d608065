"""The RunSpec, everything that decides what a run computes, and the canonical form that ids are made of.

Documents carry versions (`versions`); every JSON that is hashed or signed is made in `canonical`.
"""

from iota.spec.canonical import Frozen, canonical_json, json_digest
from iota.spec.fields import MAX_INTEGER, Count, Fraction, Hex32, Positive, Small
from iota.spec.parts import (
    AuditSpec,
    BoundarySpec,
    ComputeDtype,
    DataSpec,
    Decay,
    LayoutSpec,
    ModelSpec,
    OptimizerKind,
    OptimizerSpec,
    OuterSpec,
    Pipeline,
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
    "ComputeDtype",
    "Count",
    "DataSpec",
    "Decay",
    "Fraction",
    "Frozen",
    "Hex32",
    "LayoutSpec",
    "ModelSpec",
    "OptimizerKind",
    "OptimizerSpec",
    "OuterSpec",
    "Pipeline",
    "Positive",
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
