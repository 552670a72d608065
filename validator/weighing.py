"""Scores from what the notebook holds, and weights on the chain once a tempo."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from iota.chain import ChainError
from iota.protocol.messages import WeightsSet
from iota.spec import AuditSpec
from validator.budget import Budget
from validator.notebook import Notebook
from validator.onchain import OnChain
from validator.scoring import Score, scores

log = logging.getLogger(__name__)

LAST_WEIGHTS_S: Final = 300.0
"""How long the last weights may wait for the chain's rate limit."""
_LOOK_S: Final = 1.0


class Weigher:
    """`say` sends the report that weights were set."""

    def __init__(
        self,
        audit: AuditSpec,
        notebook: Notebook,
        chain: OnChain,
        budget: Budget,
        say: Callable[[WeightsSet], None],
    ) -> None:
        self._audit, self._notebook, self._chain = audit, notebook, chain
        self._budget, self._say = budget, say

    def scores(self) -> tuple[Score, ...]:
        """Scores after the newest audited epoch; none before the first."""
        now = self._notebook.last_done()
        if now is None:
            return ()
        work = self._notebook.work(now - self._audit.window + 1, now)
        return scores(self._audit, now, work, self._notebook.failed())

    def explain(self) -> None:
        """Write down each score with what it is made of."""
        now = self._notebook.last_done()
        if now is not None:
            self._notebook.explain(now, self.scores(), self._budget.share)

    async def weigh(self) -> None:
        """Set weights in every tempo, from the first audited epoch on. Runs until cancelled."""
        weighed: int | None = None
        while True:
            if self._notebook.last_done() is not None:
                try:
                    tempo = await self._chain.tempo_index()
                    if tempo != weighed and await self._set(None):
                        weighed = tempo
                except ChainError as error:
                    log.warning("weights could not be set: %s", error)
            await asyncio.sleep(_LOOK_S)

    async def set_last(self, patience_s: float = LAST_WEIGHTS_S) -> None:
        """Set weights after the last audited epoch, waiting out the chain's rate limit."""
        try:
            await self._set(patience_s)
        except ChainError as error:
            log.error("the last weights could not be set: %s", error)

    async def _set(self, patience_s: float | None) -> bool:
        """True where the chain took weights. Raises ChainError."""
        found = self.scores()
        if not found:
            return False
        weights = {score.hotkey: score.weight for score in found}
        if patience_s is None:
            block = await self._chain.set_weights(weights, self._audit.burn)
        else:
            block = await self._chain.set_last_weights(weights, self._audit.burn, patience_s)
        if block is None:
            log.warning("no miner has a score: there are no weights to set")
            return False
        log.info("weights set in block %d", block)
        self._say(WeightsSet(block=block, weights=weights, compute_share=self._budget.share))
        return True
