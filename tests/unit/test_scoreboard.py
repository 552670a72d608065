"""`scores.json` shows each owner what its workers were charged, at a cost that follows from the charges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iota.protocol.messages import AuditKind, Outcome, Verdict
from iota.simulate.names import fake_hotkey
from tests.support.small_runs import small_run
from validator.audits.budget import Budget
from validator.core.links import LinkChain
from validator.core.scoring import MinerWork
from validator.database import Database
from validator.weights.scoreboard import Scoreboard

OWNERS = 30
KEY = fake_hotkey(999)


class Counted(dict[str, str]):
    """Owners by worker, which counts how often it is asked for one."""

    asked = 0

    def get(self, *args: Any) -> Any:
        self.asked += 1
        return super().get(*args)


def test_each_charge_is_looked_at_once_however_many_owners_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_run()
    with Database(tmp_path, spec.id, KEY) as database:
        records = database.scores
        records.keep_work(
            [MinerWork(0, fake_hotkey(n), fake_hotkey(n + 100), 7, 1, 0) for n in range(OWNERS)]
        )
        records.keep_pool(0, None)
        for number in range(OWNERS):
            for outcome, seq in ((Outcome.FAIL, 1), (Outcome.PASS, 2)):
                judged = {"epoch": 0, "miner": fake_hotkey(number), "audit": AuditKind.OP, "seq": seq}
                database.keep(f"op:{seq}", Verdict(**judged, outcome=outcome, profile=""))
        owners = Counted(records.owners())
        monkeypatch.setattr(records, "owners", lambda: owners)
        Scoreboard(spec, KEY, LinkChain(b"\x01" * 32, 1), database, Budget(1.0), tmp_path).explain()
    miners = json.loads((tmp_path / "scores.json").read_text())["miners"]
    shown = {
        owner: [(v["miner"], v["seq"], v["voided_flops"]) for v in score["charged"]]
        for owner, score in miners.items()
    }
    assert shown == {fake_hotkey(n + 100): [(fake_hotkey(n), 1, 7)] for n in range(OWNERS)}
    assert owners.asked == OWNERS
