"""Scores and weights after the newest closed epoch, explained on disk in `scores.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iota.files import write_whole
from iota.protocol.messages import Verdict
from iota.spec import RunSpec
from validator.audits.budget import Budget
from validator.core.links import LinkChain
from validator.core.pool import findings
from validator.core.scoring import EpochPay, Score, scores
from validator.core.vesting import Findings, WorkState
from validator.database import Database


class Scoreboard:
    """Scores of one run, from the database of the validator `own`. `scores.json` is written to `folder`."""

    def __init__(
        self, spec: RunSpec, own: str, links: LinkChain, database: Database, budget: Budget, folder: Path
    ) -> None:
        self._spec, self._own, self._links = spec, own, links
        self._database, self._budget, self._folder = database, budget, folder

    def scores(self) -> tuple[Score, ...]:
        """Scores after the newest closed epoch; empty before the first."""
        now = self._database.scores.newest()
        return () if now is None else self._scored(now)[0]

    def weights(self) -> dict[str, float]:
        """Weight by owner, as the scores give it."""
        return {score.hotkey: score.weight for score in self.scores()}

    def _scored(self, now: int) -> tuple[tuple[Score, ...], Findings]:
        records, audit = self._database.scores, self._spec.audit
        first = now - audit.window + 1
        found = findings(
            self._spec,
            self._own,
            records.facts(first, now, self._own, self._links.link),
            [*self._database.judgements(self._own, first, now), *records.judgements(first, now)],
        )
        return scores(audit, now, records.work(first, now), found, records.owners()), found

    def explain(self) -> None:
        """Write `scores.json`: each owner's score with its reasons, and the last weights' outcomes."""
        now = self._database.scores.newest()
        if now is None:
            return
        scored, found = self._scored(now)
        charging, window = self._database.charging(), self._spec.audit.window
        owners = self._database.scores.owners()
        document = {
            "epoch": now,
            "compute_share": self._budget.share,
            "internal_errors": self._database.internal_errors(),
            "miners": {score.hotkey: _explained(score, charging, owners) for score in scored},
            "silenced": {v: {"refuted": at, "until": max(at) + window} for v, at in found.silenced.items()},
            "weights": self._database.weights.shown(),
        }
        write_whole(self._folder / "scores.json", (json.dumps(document, indent=1) + "\n").encode())


def _explained(score: Score, charging: list[Verdict], owners: Mapping[str, str]) -> dict[str, Any]:
    """A score as `scores.json` shows it: with the own verdicts that cost something, and what each did."""
    return {
        **asdict(score),
        "charged": [
            {**v.model_dump(mode="json"), "voided_flops": _voided(score.epochs, v)}
            for v in charging
            if owners.get(v.miner, v.miner) == score.hotkey
        ],
    }


def _voided(epochs: tuple[EpochPay, ...], verdict: Verdict) -> int:
    """Model FLOPs within the window that a verdict voided."""
    at = (WorkState.VOIDED, verdict.epoch, verdict.miner)
    return sum(pay.flops for pay in epochs if (pay.state, pay.settled, pay.worker) == at)
