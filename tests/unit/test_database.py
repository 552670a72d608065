"""The validator's database: each verdict once, for one run, one hotkey and one process."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.messages import AuditKind, Heldout, Outcome, Verdict
from validator.audits.verdicts import VerdictSigner
from validator.core.effects import FileVerdict
from validator.core.results import Result
from validator.core.scoring import MinerWork
from validator.core.tasks import AuditTask
from validator.database import DATABASE_NAME, Database, DatabaseInUse

KEY = Hotkey.from_seed(b"\x01" * 32)
MINER = Hotkey.from_seed(b"\x02" * 32).ss58
RUN = "ab" * 32
HELDOUT = Heldout(epoch=1, loss=2.5, standard_error=0.01, tokens=4096)


def verdict(outcome: Outcome = Outcome.PASS, epoch: int = 0, seq: int = 7) -> Verdict:
    task = AuditTask(AuditKind.OP, f"op:{seq}", seq)
    return VerdictSigner(RUN, KEY)(FileVerdict(epoch, MINER, task, Result(outcome, seq, "exact")))


def test_the_first_verdict_of_a_name_stands_over_restarts(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        first = database.keep("op:7", verdict())
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.keep("op:7", verdict(Outcome.FAIL)) == first
        assert database.verdicts(0) == [first]
        assert database.failed() == []


def test_failed_verdicts_are_listed_by_epoch(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        for epoch, name in ((3, "op:1"), (1, "op:1"), (1, "op:2")):
            database.keep(name, verdict(Outcome.FAIL, epoch))
        assert [(v.miner, v.epoch) for v in database.failed()] == [(MINER, 1), (MINER, 1), (MINER, 3)]


def test_an_unproven_epoch_marks_its_work(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        database.keep_work([MinerWork(e, MINER, 10, 1, 0) for e in range(3)])
        database.keep("op:1", verdict(Outcome.INCONCLUSIVE, 1), unproven=True)
        assert [(w.epoch, w.unproven) for w in database.work(1, 2)] == [(1, True), (2, False)]


def test_finished_epochs_and_held_out_losses_are_remembered(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.last_audited() is None
        database.keep_heldout(HELDOUT)
        database.finish(0)
        database.finish(1)
        database.keep("op:7", verdict(epoch=2))
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.last_audited() == 1
        history = database.history()
        assert (history.audited, history.heldout) == ({0, 1}, {1: HELDOUT})
        assert history.filed == {(2, MINER, "op:7")}


def test_two_processes_cannot_share_a_directory(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58), pytest.raises(DatabaseInUse, match="--data-dir"):
        Database(tmp_path, RUN, KEY.ss58)


def test_another_hotkey_is_told_to_use_its_own_directory(tmp_path: Path) -> None:
    Database(tmp_path, RUN, KEY.ss58).close()
    with pytest.raises(DatabaseInUse, match="another run or hotkey"):
        Database(tmp_path, RUN, MINER)


def _damage(path: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        del data[len(data) * 2 // 3 :]
    elif kind == "no database":
        data[:] = b"no database" * 100
    else:  # a page of a table
        data[8192:12288] = b"\xff" * 4096
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["truncated", "no database", "a page"])
def test_a_damaged_database_is_kept_aside_and_an_empty_one_takes_its_place(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        database.finish(3)
    _damage(tmp_path / DATABASE_NAME, kind)
    damaged = (tmp_path / DATABASE_NAME).read_bytes()
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.last_audited() is None
        database.finish(4)
    assert (tmp_path / f"{DATABASE_NAME}.damaged-1").read_bytes() == damaged
    assert "is damaged" in caplog.text
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.last_audited() == 4


def test_a_database_of_another_version_is_refused_and_not_changed(tmp_path: Path) -> None:
    Database(tmp_path, RUN, KEY.ss58).close()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as db:
        db.execute("pragma user_version = 9")
    db.close()
    for _ in range(2):
        with pytest.raises(DatabaseInUse, match="of version 9"):
            Database(tmp_path, RUN, KEY.ss58)
    assert not list(tmp_path.glob("*.damaged-*"))
