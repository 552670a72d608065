"""Held-out loss of a base, stage by stage: one stage's weights in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iota.compute.evaluate import EvaluationBatch, EvaluationOutput, evaluate_stage
from iota.compute.state import StageState
from iota.data.samples import Samples
from validator.audits.budget import Worker
from validator.audits.evidence import Evidence
from validator.core.jobs import Base

BATCHES: Final = 4
"""Held-out batches by default. Enough to see a trend, few enough for the compute cap."""


class HeldoutLoss:
    """Measures the bases of one run on the first `batches` held-out batches."""

    def __init__(self, evidence: Evidence, samples: Samples, worker: Worker, batches: int = BATCHES) -> None:
        self._evidence, self._samples, self._worker, self._batches = evidence, samples, worker, batches

    async def measure(self, bases: Sequence[Base]) -> float | None:
        """Mean loss in nats a token; None if the data holds out less than one batch.

        Args:
            bases: one base per stage, in order of stage.

        Raises:
            EvidenceMissing: a base is unavailable.
            BadValueError: a base gives NaN or Inf.
        """
        inputs = [EvaluationBatch(tokens) for tokens in await self._samples.heldout(self._batches)]
        if not inputs:
            return None
        losses: list[float] = []
        for base in bases:
            state = await self._evidence.base(base)
            outputs = [await self._pass(base.stage, state, batch) for batch in inputs]
            losses = [out.loss for out in outputs if out.loss is not None]
            inputs = [EvaluationBatch(b.tokens, o.payload) for b, o in zip(inputs, outputs, strict=True)]
        return sum(losses) / len(losses)

    async def _pass(self, stage: int, state: StageState, batch: EvaluationBatch) -> EvaluationOutput:
        """One batch through one stage, as one unit of work under the compute cap."""
        spec = self._evidence.spec
        return await self._worker.run(lambda: next(iter(evaluate_stage(spec, stage, state, [batch]))))
