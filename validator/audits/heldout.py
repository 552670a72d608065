"""Measures the held-out loss of a base, batch by batch under the compute cap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from iota.compute.evaluate import Evaluation
from iota.compute.heldout_loss import HeldoutLoss, heldout_loss
from iota.data.samples import Samples
from validator.audits.budget import Worker
from validator.audits.evidence import Evidence
from validator.core.jobs import Base


class HeldoutMeter:
    """Measures the bases of one run on the same held-out tokens, of which `most_tokens` bounds the number."""

    def __init__(self, evidence: Evidence, samples: Samples, worker: Worker, most_tokens: int) -> None:
        self._evidence, self._samples, self._worker = evidence, samples, worker
        self._most_tokens = most_tokens

    async def measure(self, bases: Sequence[Base]) -> HeldoutLoss | None:
        """The loss with its standard error; None if the data holds out less than one batch.

        Args:
            bases: one base per stage, in order of stage.

        Raises:
            EvidenceMissing: a base is unavailable.
            BadValueError: a base gives NaN or Inf.
        """
        tokens = await self._samples.heldout(self._most_tokens)
        if not tokens.batches:
            return None
        evaluation = Evaluation(self._evidence.spec, tokens.batches)
        for base in bases:
            units = evaluation.stage(base.stage, await self._evidence.base(base))
            while await self._worker.run(partial(next, units, None)) is not None:
                pass
        return heldout_loss(evaluation.losses, tokens.documents)
