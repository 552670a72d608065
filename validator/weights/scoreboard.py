"""Scores and weights after the newest closed epoch, explained on disk in `scores.json`."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iota.files import write_whole
from iota.protocol.messages import Verdict
from iota.spec import RunSpec
from validator.audits.budget import Budget
from validator.core.links import LinkChain
from validator.core.pool import findings
from validator.core.scoring import Score, scores
from validator.core.segments import window_start
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
            records.drawable(window_start(self._spec, max(0, first)), first - 1),
        )
        return scores(audit, now, records.work(first, now), found, records.owners()), found

    def explain(self) -> None:
        """Write `scores.json`: each owner's score with its reasons, and the last weights' outcomes."""
        now = self._database.scores.newest()
        if now is None:
            return
        scored, found = self._scored(now)
        window, owners = self._spec.audit.window, self._database.scores.owners()
        charges: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in self._database.charging():
            charges[owners.get(verdict.miner, verdict.miner)].append(verdict)
        document = {
            "epoch": now,
            "compute_share": self._budget.share,
            "internal_errors": self._database.internal_errors(),
            "miners": {score.hotkey: _explained(score, charges.get(score.hotkey, ())) for score in scored},
            "silenced": {v: {"refuted": at, "until": max(at) + window} for v, at in found.silenced.items()},
            "weights": self._database.weights.shown(),
        }
        write_whole(self._folder / "scores.json", (json.dumps(document, indent=1) + "\n").encode())


def _explained(score: Score, charges: Sequence[Verdict]) -> dict[str, Any]:
    """A score as `scores.json` shows it.

    Args:
        charges: the own verdicts that cost this owner something; each is shown with the model FLOPs within
            the window that it voided.
    """
    voided: Counter[tuple[int | None, str]] = Counter()
    for pay in score.epochs:
        if pay.state is WorkState.VOIDED:
            voided[pay.settled, pay.worker] += pay.flops
    shown = [{**v.model_dump(mode="json"), "voided_flops": voided[v.epoch, v.miner]} for v in charges]
    return {**asdict(score), "charged": shown}
