"""Scores and weights after the newest audited epoch, explained on disk in `scores.json`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from iota.files import write_whole
from iota.spec import AuditSpec
from validator.audits.budget import Budget
from validator.core.scoring import Score, scores
from validator.database import Database


class Scoreboard:
    """Scores of one run, from this validator's database. `scores.json` is written to `folder`."""

    def __init__(self, audit: AuditSpec, database: Database, budget: Budget, folder: Path) -> None:
        self._audit, self._database, self._budget, self._folder = audit, database, budget, folder

    def scores(self) -> tuple[Score, ...]:
        """Scores after the newest audited epoch; empty before the first."""
        now = self._database.last_audited()
        if now is None:
            return ()
        work = self._database.work(now - self._audit.window + 1, now)
        failed: dict[str, list[int]] = {}
        for verdict in self._database.failed():
            failed.setdefault(verdict.miner, []).append(verdict.epoch)
        return scores(self._audit, now, work, failed)

    def weights(self) -> dict[str, float]:
        """Weight by hotkey, as the scores give it."""
        return {score.hotkey: score.weight for score in self.scores()}

    def explain(self) -> None:
        """Write `scores.json`: each miner's score with its reasons, and the last weights' outcomes."""
        now = self._database.last_audited()
        if now is None:
            return
        failed = self._database.failed()
        document = {
            "epoch": now,
            "compute_share": self._budget.share,
            "internal_errors": self._database.internal_errors(),
            "miners": {
                score.hotkey: {
                    **asdict(score),
                    "failed": [v.model_dump(mode="json") for v in failed if v.miner == score.hotkey],
                }
                for score in self.scores()
            },
            "weights": self._database.weights.shown(),
        }
        write_whole(self._folder / "scores.json", (json.dumps(document, indent=1) + "\n").encode())
