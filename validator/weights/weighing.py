"""Scores and weights from what the notebook holds, and their explanation on disk."""

from __future__ import annotations

from iota.spec import AuditSpec
from validator.audits.budget import Budget
from validator.core.scoring import Score, scores
from validator.notebook import Notebook


class Weighing:
    """What each miner's work is worth after the newest audited epoch."""

    def __init__(self, audit: AuditSpec, notebook: Notebook, budget: Budget) -> None:
        self._audit, self._notebook, self._budget = audit, notebook, budget

    def scores(self) -> tuple[Score, ...]:
        """Scores after the newest audited epoch; none before the first."""
        now = self._notebook.last_done()
        if now is None:
            return ()
        work = self._notebook.work(now - self._audit.window + 1, now)
        return scores(self._audit, now, work, self._notebook.failed())

    def weights(self) -> dict[str, float]:
        """Weight by hotkey, from the scores."""
        return {score.hotkey: score.weight for score in self.scores()}

    def explain(self) -> None:
        """Write down each score with what it is made of, and what became of the last weights."""
        now = self._notebook.last_done()
        if now is not None:
            self._notebook.explain(now, self.scores(), self._budget.share)
