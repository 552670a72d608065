"""What is calibrated: runs, each with one precision, optimizer and wire dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from iota.model.proposal import make_spec
from iota.spec import OptimizerKind, Pipeline, Precision, RunSpec, WireDtype
from iota.spec.draft import Draft
from validator.audits.measured import formats

_VOCABULARY: Final = 257
"""Of bytes, and an end of text."""
_MICROBATCHES: Final = 2
"""In a step: enough for a sum of gradients."""


@dataclass(frozen=True)
class Plan:
    """One calibration."""

    specs: tuple[RunSpec, ...]
    segments: int
    """Segments of each run, one after the other."""
    depths: tuple[int, ...]
    """Numbers of steps after which states are compared, ascending. The last is a segment's length."""


def default_specs(
    precisions: Sequence[Precision],
    optimizers: Sequence[OptimizerKind],
    wires: Sequence[WireDtype],
    model: str,
) -> Iterator[RunSpec]:
    """Runs of a model preset with each combination, with the default codec, layout and microbatch."""
    for precision, optimizer, wire in product(precisions, optimizers, wires):
        draft: Draft = {
            "model": {"preset": model},
            "precision": precision,
            "optimizer": {"kind": optimizer},
            "boundary": {"wire": wire},
        }
        yield calibrated(make_spec(draft, "0" * 64, _VOCABULARY))


def calibrated(spec: RunSpec) -> RunSpec:
    """A run as it is replayed here: in the pipeline `sync`, with two microbatches a step of one replica.

    Raises ValueError for a run of a single stage, which sends nothing.
    """
    if spec.layout.stages < 2:
        raise ValueError("a run of one stage sends nothing to compare: give a spec of at least two stages")
    changed = spec.model_dump()
    changed["layout"]["replicas"] = 1
    changed["schedule"] |= {"pipeline": Pipeline.SYNC, "microbatches": _MICROBATCHES}
    return RunSpec.model_validate(changed)


def depths_of(steps: int) -> tuple[int, ...]:
    """Depths that are measured of segments of so many steps: 1, 5, 10 and so on."""
    return tuple(sorted({depth for depth in (1, 5, 10, 20, 50) if depth < steps} | {steps}))


def name_of(spec: RunSpec) -> str:
    """What a run's folder is called."""
    own = spec.optimizer
    named = formats(spec.precision, own.kind, own.moments, own.gradient_sums, spec.boundary.wire)
    return named.replace("/", "-")
