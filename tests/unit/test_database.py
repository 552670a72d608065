"""The validator's database: each verdict once, for one run, one hotkey and one process."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.messages import AuditKind, Outcome, Verdict
from validator.audits.verdicts import VerdictSigner
from validator.core.effects import FileVerdict
from validator.core.pool import EpochFacts, Judgement, Pool, Task
from validator.core.results import EvidenceMissing, Result, StoreAway, result_of
from validator.core.scoring import MinerWork
from validator.core.segments import Drawable
from validator.core.tasks import AuditTask
from validator.database import DATABASE_NAME, Database, DatabaseInUse

KEY = Hotkey.from_seed(b"\x01" * 32)
MINER = Hotkey.from_seed(b"\x02" * 32).ss58
OWNER = Hotkey.from_seed(b"\x03" * 32).ss58
OTHER = Hotkey.from_seed(b"\x04" * 32).ss58
"""Another validator."""
RUN = "ab" * 32


def verdict(outcome: Outcome = Outcome.PASS, epoch: int = 0, seq: int = 7) -> Verdict:
    task = AuditTask(AuditKind.OP, f"op:{seq}", seq)
    return VerdictSigner(RUN, KEY)(FileVerdict(epoch, MINER, task, Result(outcome, seq, "exact")))


def test_the_first_verdict_of_a_name_stands_over_restarts(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        first = database.keep("op:7", verdict())
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.keep("op:7", verdict(Outcome.FAIL)) == first
        assert database.verdicts(0) == [first]
        assert database.charging() == []


def test_verdicts_that_cost_something_are_listed_by_epoch(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        for epoch, name in ((3, "op:1"), (1, "op:1"), (1, "op:2")):
            database.keep(name, verdict(Outcome.FAIL, epoch))
        database.keep("op:7", verdict(Outcome.UNDELIVERED, 2))
        database.keep("op:7", verdict(Outcome.PASS, 3))
        assert [v.epoch for v in database.charging()] == [1, 1, 2, 3]


def test_judgements_say_whose_evidence_was_gone(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        for seq, ending in ((1, EvidenceMissing("gone")), (2, StoreAway("away")), (3, None)):
            task, result = AuditTask(AuditKind.OP, f"op:{seq}", seq), result_of(ending, seq)
            database.keep(task.name, VerdictSigner(RUN, KEY)(FileVerdict(0, MINER, task, result)))
        found = {j.task.seq: j.outcome for j in database.judgements(KEY.ss58, 0, 0)}
    assert found == {1: Outcome.UNSHOWN, 2: Outcome.INCONCLUSIVE, 3: Outcome.PASS}


def test_work_and_the_verdicts_of_others_come_back_as_they_were_kept(tmp_path: Path) -> None:
    work = [MinerWork(epoch, MINER, OWNER, 10**18, 1, 0, (7, 9)) for epoch in range(3)]
    theirs = Judgement(OTHER, Task(1, MINER, AuditKind.SEGMENT, 9), Outcome.PASS)
    with Database(tmp_path, RUN, KEY.ss58) as database:
        database.scores.keep_work(work)
        database.scores.keep_draw(1, "cd" * 32)
        database.scores.finish(1)
        database.scores.keep_pool(1, Pool({OTHER: "11" * 32}, (theirs,), complete=True))
        database.scores.keep_pool(2, None)
    with Database(tmp_path, RUN, KEY.ss58) as database:
        scores = database.scores
        assert (scores.work(1, 2), scores.owners(), scores.newest()) == (work[1:], {MINER: OWNER}, 2)
        assert scores.judgements(0, 2) == [theirs]
        links = {OTHER: "11" * 32, KEY.ss58: "link 1"}
        assert scores.facts(0, 2, KEY.ss58, lambda epoch: f"link {epoch}") == {
            1: EpochFacts("cd" * 32, links, {MINER: (7, 9)}, present=True, pooled=True),
            2: EpochFacts("", {}, {MINER: (7, 9)}, present=False, pooled=False),
        }
        history = database.history(5)
        assert (history.worked, history.pooled, history.audited) == ({1}, {1}, {1})


def test_the_work_of_a_miner_at_full_size_is_kept_to_the_flop(tmp_path: Path) -> None:
    """Some thousands of microbatches of a stage of 6.5e9 parameters are more than SQLite's integers hold."""
    flops = 100_000 * 6 * 6_500_000_000 * 8_192 + 1
    assert flops > 2**63
    with Database(tmp_path, RUN, KEY.ss58) as database:
        database.scores.keep_work([MinerWork(0, MINER, OWNER, flops, 1, 0)])
        assert [work.flops for work in database.scores.work(0, 0)] == [flops]


def test_a_validator_that_starts_again_knows_whom_it_owes_an_audit(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        database.keep("op:7", verdict(Outcome.INCONCLUSIVE, 1))
        database.keep("op:7", verdict(Outcome.UNDELIVERED, 2))
        assert database.history(5).owing == {(2, MINER)}


def test_finished_epochs_are_remembered(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        database.scores.finish(0)
        database.scores.finish(1)
        database.keep("op:7", verdict(epoch=2))
    with Database(tmp_path, RUN, KEY.ss58) as database:
        history = database.history(5)
        assert history.audited == {0, 1}
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
        database.scores.finish(3)
    _damage(tmp_path / DATABASE_NAME, kind)
    damaged = (tmp_path / DATABASE_NAME).read_bytes()
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.history(5).audited == set()
        database.scores.finish(4)
    assert (tmp_path / f"{DATABASE_NAME}.damaged-1").read_bytes() == damaged
    assert "is damaged" in caplog.text
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.history(5).audited == {4}


def test_a_database_of_another_version_is_refused_and_not_changed(tmp_path: Path) -> None:
    Database(tmp_path, RUN, KEY.ss58).close()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as db:
        db.execute("pragma user_version = 9")
    db.close()
    for _ in range(2):
        with pytest.raises(DatabaseInUse, match="of version 9"):
            Database(tmp_path, RUN, KEY.ss58)
    assert not list(tmp_path.glob("*.damaged-*"))


def test_what_public_draws_follow_from_is_known_after_a_restart_for_one_window(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        for epoch in range(4):
            database.scores.keep_work(
                [MinerWork(epoch, MINER, OWNER, 1, 1, 0, (7, 9)), MinerWork(epoch, OTHER, OWNER, 1, 1, 0, ())]
            )
            if epoch != 2:  # of which the block's hash is not known
                database.scores.keep_draw(epoch, f"{epoch:064x}")
    with Database(tmp_path, RUN, KEY.ss58) as database:
        expected = {epoch: Drawable(f"{epoch:064x}", {MINER: 2}) for epoch in (1, 3)}
        assert database.history(3).drawable == expected
