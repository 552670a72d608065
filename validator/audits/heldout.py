"""Held-out loss of a base, stage by stage: one stage's weights in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iota.compute.evaluate import EvaluationBatch, EvaluationOutput, evaluate_stage
from iota.compute.state import StageState
from iota.data.samples import Samples
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec
from validator.audits.budget import Worker
from validator.audits.evidence import Evidence

BATCHES: Final = 4
"""Held-out batches by default: enough to see a trend, few enough for the compute cap."""


async def heldout_loss(
    spec: RunSpec,
    epoch: int,
    bases: Sequence[BaseRecord],
    evidence: Evidence,
    samples: Samples,
    worker: Worker,
    batches: int = BATCHES,
) -> float | None:
    """Mean nats a token of the base of `epoch`; None where the data holds out less than one batch.

    Raises Missing where a base cannot be had, BadValueError where it gives NaN or Inf.
    """
    inputs = [EvaluationBatch(tokens) for tokens in await samples.heldout(batches)]
    if not inputs:
        return None
    losses: list[float] = []
    for stage in range(spec.layout.stages):
        state = await evidence.stored_base(bases, epoch, stage)
        outputs = [await worker.run(_Pass(spec, stage, state, batch)) for batch in inputs]
        losses = [out.loss for out in outputs if out.loss is not None]
        inputs = [EvaluationBatch(b.tokens, o.payload) for b, o in zip(inputs, outputs, strict=True)]
    return sum(losses) / len(losses)


class _Pass:
    """One batch through one stage."""

    def __init__(self, spec: RunSpec, stage: int, state: StageState, batch: EvaluationBatch) -> None:
        self._arguments = (spec, stage, state, [batch])

    def __call__(self) -> EvaluationOutput:
        return next(iter(evaluate_stage(*self._arguments)))
