"""The schedule that is proposed for a model of each size. Sources: docs/training.md, "Proposed schedules"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from iota.model.audit_rates import COMPUTE_BUDGET
from iota.model.layout import stage_parameters
from iota.model.presets import PRESETS
from iota.spec import ModelSpec, OptimizerKind, Precision


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Proposed values for one size of model. What is not here has the default of the RunSpec."""

    stages: int
    replicas: int = 1
    epochs: int
    steps: int
    """Steps in an epoch: few, since a miner keeps a snapshot of each for audits."""
    microbatches: int
    sequence_length: int
    sequences: int
    ratio: int = 16
    optimizer: OptimizerKind = OptimizerKind.ADAMW
    rates: Mapping[OptimizerKind, float]
    """Learning rate by optimizer."""
    weight_decay: float = 0.1
    warmup_share: float = 0.01
    """Share of all steps that warm up, and `warmup_most` steps at most."""
    warmup_most: int = 2000
    precision: Precision = Precision.BF16_MASTER
    audit_share: float | None = None
    """Share of the compute that audits may take, which their rates follow from; None: the RunSpec's rates."""

    def warmup(self, steps: int) -> int:
        """Warm-up of a run of `steps` steps."""
        return min(self.warmup_most, int(steps * self.warmup_share))


def _rates(adamw: float, muon: float | None = None) -> dict[OptimizerKind, float]:
    """Muon's updates are scaled to AdamW's, so that it takes AdamW's rate where none was measured."""
    return {OptimizerKind.ADAMW: adamw, OptimizerKind.MUON: muon or adamw, OptimizerKind.SGD: 1e-1}


DEMONSTRATION = Schedule(
    stages=3, epochs=3, steps=20, microbatches=8, sequence_length=256, sequences=4,
    optimizer=OptimizerKind.MUON, rates=_rates(1e-3, 5e-3), weight_decay=0.0,
    warmup_share=0.1, warmup_most=10, precision=Precision.FP32,
)  # fmt: skip
"""For `tiny` and `small`: a falling loss within two minutes on two cores. The rates are the best of a few for
`small` in `delayed` (docs/decisions.md)."""

SCHEDULES: dict[str, Schedule] = {
    "tiny": DEMONSTRATION,
    "small": DEMONSTRATION,
    "nano-20m": Schedule(
        stages=3, epochs=6, steps=10, microbatches=8, sequence_length=512, sequences=4,
        rates=_rates(1e-3), warmup_share=0.1, precision=Precision.FP32,
    ),
    "nano-100m": Schedule(
        stages=2, epochs=240, steps=20, microbatches=64, sequence_length=1024, sequences=8,
        rates=_rates(6e-4),
    ),
    "llama-1b": Schedule(
        stages=4, epochs=1430, steps=20, microbatches=256, sequence_length=2048, sequences=2,
        rates=_rates(3e-4), audit_share=COMPUTE_BUDGET,
    ),
    "llama-8b": Schedule(
        stages=8, epochs=1915, steps=20, microbatches=1024, sequence_length=4096, sequences=1,
        rates=_rates(3e-4), audit_share=COMPUTE_BUDGET,
    ),
    "orion-100b": Schedule(
        stages=16, replicas=3, epochs=1000, steps=10, microbatches=480, sequence_length=8000, sequences=1,
        ratio=64, rates=_rates(1e-4), audit_share=COMPUTE_BUDGET,
    ),
}  # fmt: skip
"""By preset."""


def schedule_for(model: ModelSpec, preset: str | None = None) -> Schedule:
    """The schedule of `preset`; without one, of the preset nearest to `model` in parameters, as a ratio."""
    if preset in SCHEDULES:
        return SCHEDULES[preset]
    size = _parameters(model)
    nearest = min(SCHEDULES, key=lambda name: abs(math.log(_parameters(PRESETS[name]) / size)))
    return SCHEDULES[nearest]


def _parameters(model: ModelSpec) -> int:
    return stage_parameters(model, (model.layers,))[0]
