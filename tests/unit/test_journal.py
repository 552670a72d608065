"""The SQLite journal: durable, ordered, one writer, one run."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from iota.identity.keys import Hotkey
from orchestrator.coordinator import Exchanged, Joined, Tick
from orchestrator.journal import JournalBroken, JournalRefused, JournalUnavailable, Record, SqliteJournal
from orchestrator.journal.sqlite import JOURNAL_VERSION
from tests.support.orchestrators import ORCHESTRATOR, Log, join_request, make_spec

SPEC = make_spec()
MINER = Hotkey.from_seed(b"m" * 32)


def open_journal(path: Path) -> SqliteJournal:
    return SqliteJournal(path, SPEC, ORCHESTRATOR.ss58)


def tick(number: int) -> Record:
    return Record(Tick(at=float(number), block=number, block_hash="0" * 64))


def said(log: Log, since: int) -> Record:
    batch = log.after(since)
    assert batch is not None
    return Record(Exchanged(at=1.0, hotkey=log.hotkey.ss58, receipts=batch.receipts), batch.signature)


def test_a_reopened_journal_replays_every_entry_in_order(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "j")
    entries = [Joined(at=0.1, hotkey=MINER.ss58, request=join_request()), *(tick(n).entry for n in range(5))]
    journal.append([Record(entry) for entry in entries[:3]], 7)
    journal.append([Record(entry) for entry in entries[3:]], 9)
    journal.close()
    again = open_journal(tmp_path / "j")
    assert list(again.replay()) == entries
    assert again.highest_nonce == 9
    again.close()


def test_a_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    first = open_journal(tmp_path / "j")
    with pytest.raises(JournalRefused, match="another orchestrator is writing"):
        open_journal(tmp_path / "j")
    first.close()
    open_journal(tmp_path / "j").close()


def test_the_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    open_journal(tmp_path / "j").close()
    with pytest.raises(JournalRefused, match="journal of run"):
        SqliteJournal(tmp_path / "j", make_spec(steps=3), ORCHESTRATOR.ss58)


def test_the_journal_of_another_orchestrator_is_refused(tmp_path: Path) -> None:
    open_journal(tmp_path / "j").close()
    with pytest.raises(JournalRefused, match="journal of orchestrator"):
        SqliteJournal(tmp_path / "j", SPEC, MINER.ss58)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(JournalRefused, match="cannot be used as a journal"):
        open_journal(tmp_path / "j")


@pytest.mark.parametrize(
    ("version", "statement"), [(JOURNAL_VERSION + 1, ""), (0, "CREATE TABLE entries (json TEXT)")]
)
def test_a_file_of_another_version_is_refused_and_left_as_it_was(
    tmp_path: Path, version: int, statement: str
) -> None:
    other = sqlite3.connect(tmp_path / "j")
    other.executescript(f"PRAGMA user_version = {version}; {statement}")
    other.close()
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(JournalRefused, match=f"of version {version}, and this .* another path"):
        open_journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == before


def test_a_journal_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "j").touch()
    journal = open_journal(tmp_path / "j")
    journal._db.execute("DELETE FROM meta")  # the tables were there, and their run not yet
    journal.close()
    journal = open_journal(tmp_path / "j")
    assert list(journal.replay()) == []
    journal.close()


def test_a_folder_that_does_not_exist_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(JournalRefused, match="give a path"):
        open_journal(tmp_path / "nowhere" / "j")


def fill_disk(journal: SqliteJournal) -> None:
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_stores_nothing_of_the_group_and_passes_when_there_is_room(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "j")
    journal.append([tick(0)], 0)
    fill_disk(journal)
    with pytest.raises(JournalUnavailable, match="full"):
        journal.append([tick(n) for n in range(1, 2000)], 0)
    assert [e.at for e in journal.replay()] == [0.0]
    journal._db.execute("PRAGMA max_page_count = 100000")
    journal.append([tick(1)], 0)
    assert [e.at for e in journal.replay()] == [0.0, 1.0]
    journal.close()


def test_a_journal_that_changed_under_the_writer_stops_it(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "j")
    journal.append([tick(0)], 0)
    other = sqlite3.connect(tmp_path / "j")
    other.execute("INSERT INTO entries VALUES (2, 0, 'tick', '{}')")
    other.commit()
    with pytest.raises(JournalBroken):
        journal.append([tick(1)], 0)
    other.close()
    journal.close()


def test_receipts_come_back_as_the_miner_signed_them_by_epoch(tmp_path: Path) -> None:
    journal, log = open_journal(tmp_path / "j"), Log(MINER, SPEC.id, 0)
    for epoch in (0, 0, 1, 2):
        log.add(epoch=epoch)
    records = [said(Log(MINER, SPEC.id, 0, log.receipts[:3]), 0), said(log, 3)]
    journal.append(records, 0)
    [first] = journal.receipts(MINER.ss58, 1)
    assert first == Log(MINER, SPEC.id, 0).sign(log.receipts[:3]).model_copy(
        update={"signature": records[0].signature}
    )
    assert [r.seq for b in journal.receipts(MINER.ss58, 2) for r in b.receipts] == [4]
    assert journal.receipts(ORCHESTRATOR.ss58, 1) == []
    journal.close()


def test_receipts_of_the_next_epoch_between_those_of_one_come_with_them(tmp_path: Path) -> None:
    """A chain without them would have a gap."""
    journal, log, records = open_journal(tmp_path / "j"), Log(MINER, SPEC.id, 0), []
    for sent, epoch in enumerate((0, 1, 0, 2)):
        log.add(epoch=epoch)
        records.append(said(log, sent))
    journal.append(records, 0)
    seqs = [[r.seq for b in journal.receipts(MINER.ss58, epoch) for r in b.receipts] for epoch in range(3)]
    assert seqs == [[1, 2, 3], [2], [4]]
    journal.close()
