"""Scores and weights after the newest audited epoch, and their explanation on disk (`scores.json`)."""

from __future__ import annotations

import json
from pathlib import Path

from iota.files import write_whole
from iota.spec import AuditSpec
from validator.audits.budget import Budget
from validator.core.scoring import Score, scores
from validator.database import Database


class Scoreboard:
    """Scores of one run, from the database of this validator. `folder` is where `scores.json` lies."""

    def __init__(self, audit: AuditSpec, database: Database, budget: Budget, folder: Path) -> None:
        self._audit, self._database, self._budget, self._folder = audit, database, budget, folder

    def scores(self) -> tuple[Score, ...]:
        """Scores after the newest audited epoch; none before the first."""
        now = self._database.last_audited()
        if now is None:
            return ()
        work = self._database.work(now - self._audit.window + 1, now)
        failed: dict[str, list[int]] = {}
        for verdict in self._database.failed():
            failed.setdefault(verdict.miner, []).append(verdict.epoch)
        return scores(self._audit, now, work, failed)

    def weights(self) -> dict[str, float]:
        """Weight by hotkey, from the scores."""
        return {score.hotkey: score.weight for score in self.scores()}

    def explain(self) -> None:
        """Write down each miner's score with its reasons, and the last weights with their outcome."""
        now = self._database.last_audited()
        if now is None:
            return
        failed = self._database.failed()
        document = {
            "epoch": now,
            "compute_share": self._budget.share,
            "miners": {
                score.hotkey: {
                    **score.as_dict(),
                    "failed": [v.model_dump(mode="json") for v in failed if v.miner == score.hotkey],
                }
                for score in self.scores()
            },
            "weights": self._database.weights.shown(),
        }
        write_whole(self._folder / "scores.json", (json.dumps(document, indent=1) + "\n").encode())
