"""The journal in one SQLite file (WAL, synchronous=FULL): about half a millisecond an append."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from iota.console.classification import passing
from iota.console.counts import counted
from iota.files import FileLock
from iota.protocol.receipts import ReceiptBatch
from iota.protocol.records import START_RECORDS, BaseRecord
from iota.spec import RunSpec
from orchestrator.coordinator import Entry, Exchanged
from orchestrator.journal.journal import JournalBroken, JournalRefused, JournalUnavailable, Record

JOURNAL_VERSION: Final = 13
"""The form of the tables and of the entries in them; the file holds it as SQLite's `user_version`."""
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
PRAGMA user_version = {JOURNAL_VERSION};
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, json TEXT NOT NULL);
CREATE TABLE batches (
    entry INTEGER PRIMARY KEY REFERENCES entries (seq),
    hotkey TEXT NOT NULL, first_epoch INTEGER NOT NULL, last_epoch INTEGER NOT NULL,
    signature TEXT NOT NULL);
CREATE INDEX batches_of_miner ON batches (hotkey, last_epoch);
COMMIT;
"""
_ENTRY: Final[TypeAdapter[Entry]] = TypeAdapter(Entry)


class SqliteJournal:
    """A `Journal` in one file. `append` may be called by one thread at a time, `receipts` by another one."""

    def __init__(self, path: Path, spec: RunSpec, orchestrator: str) -> None:
        """Open or create the journal of this run and this orchestrator hotkey (ss58).

        Raises JournalRefused where another process writes to the file, or where it belongs to another run or
        orchestrator, has another version or is no journal; sqlite3.Error and OSError for a full disk.
        """
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._lock = _exclusive_lock(path)
        try:
            self._db = self._connect()
            self._open(spec, orchestrator)
            self._next = self._stored() + 1
        except (sqlite3.Error, JournalRefused) as error:
            self._lock.release()
            if isinstance(error, JournalRefused) or passing(error):
                raise
            raise JournalRefused(f"{path} cannot be used as a journal: {error}; give another path") from error

    def append(self, records: Sequence[Record], highest_nonce: int) -> None:
        rows, batches = [], []
        for seq, record in enumerate(records, self._next):
            entry = record.entry
            rows.append((seq, entry.at, entry.kind.value, entry.canonical().decode()))
            if isinstance(entry, Exchanged) and entry.receipts:
                epochs = [receipt.epoch for receipt in entry.receipts]
                batches.append((seq, entry.hotkey, min(epochs), max(epochs), record.signature))
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
                self._db.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", batches)
                self._put_meta("highest_nonce", str(highest_nonce))
        except sqlite3.Error as error:
            self._check_nothing_stored(error)
            raise JournalUnavailable(f"the journal cannot be written: {error}") from error
        self._next += len(rows)

    def replay(self) -> Iterator[Entry]:
        for (text,) in self._db.execute("SELECT json FROM entries ORDER BY seq"):
            yield _ENTRY.validate_json(text)

    def keep_start(self, start: Sequence[BaseRecord]) -> None:
        """Keep the stored base 0 that the coordinator began with, so that the journal replays alone.

        Raises sqlite3.Error and OSError for a full disk.
        """
        text = START_RECORDS.dump_json(tuple(start)).decode()
        if self._meta("start") != text:
            with self._db:
                self._put_meta("start", text)

    @property
    def highest_nonce(self) -> int:
        return int(self._meta("highest_nonce") or 0)

    def receipts(self, hotkey: str, epoch: int) -> list[ReceiptBatch]:
        # On a separate connection, so that a read does not wait for a commit.
        if self._reader is None:
            self._reader = self._connect()
        rows = self._reader.execute(
            "SELECT entries.json, batches.signature FROM batches JOIN entries ON entries.seq = batches.entry"
            " WHERE hotkey = ? AND last_epoch >= ? AND first_epoch <= ? ORDER BY batches.entry",
            (hotkey, epoch, epoch),
        ).fetchall()
        return [
            ReceiptBatch.model_validate({"receipts": json.loads(text)["receipts"], "signature": signature})
            for text, signature in rows
        ]

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._db.close()
        self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: transactions are only those that this class begins.
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        db.execute("PRAGMA synchronous=FULL")
        return db

    def _open_tables(self) -> None:
        """Create the tables in an empty file. Raises JournalRefused for a file of another version."""
        version = self._number("PRAGMA user_version")
        fresh = version == 0 and self._number("SELECT count(*) FROM sqlite_master") == 0
        if not fresh and version != JOURNAL_VERSION:
            raise JournalRefused(
                f"{self._path} is of version {version}, and this release reads journals of version"
                f" {JOURNAL_VERSION}: give another path, or start the release that wrote it"
            )
        # Only after the check, so that a refused file is not changed.
        self._db.execute("PRAGMA journal_mode=WAL")
        if fresh:
            self._db.executescript(_SCHEMA)

    def _open(self, spec: RunSpec, orchestrator: str) -> None:
        """Bind a new file to the run and the orchestrator. Raises JournalRefused for a file of others."""
        self._open_tables()
        ours = {"run": spec.id, "orchestrator": orchestrator}
        if self._meta("run") is None:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                for name, value in {**ours, "spec": spec.canonical().decode()}.items():
                    self._put_meta(name, value)
        for name, value in ours.items():
            found = self._meta(name)
            if found != value:
                raise JournalRefused(
                    f"{self._path} is the journal of {name} {found}, and this is {name} {value}:"
                    " give this run a journal of its own, or start the run that the journal belongs to"
                )

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _put_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _stored(self) -> int:
        return self._number("SELECT coalesce(max(seq), 0) FROM entries")

    def _number(self, query: str) -> int:
        row: Any = self._db.execute(query).fetchone()
        return int(row[0])

    def _check_nothing_stored(self, cause: sqlite3.Error) -> None:
        """Check after a failed commit that nothing was stored. Raises JournalBroken where something was."""
        try:
            stored = self._stored()
        except sqlite3.Error as error:
            raise JournalBroken(f"{self._path} can no longer be read: {error}") from cause
        if stored != self._next - 1:
            holds = f"holds {counted(stored, 'entry')}, memory {self._next - 1}"
            raise JournalBroken(f"{self._path} {holds}") from cause


def _exclusive_lock(path: Path) -> FileLock:
    """A lock for the life of the process. SQLite's own exclusive lock would also exclude readers."""
    in_use = f"another orchestrator is writing to {path}: stop it first, or give another journal"
    try:
        return FileLock(path.with_name(path.name + ".lock"), lambda: JournalRefused(in_use))
    except OSError as error:
        if passing(error):
            raise
        raise JournalRefused(
            f"cannot write beside {path} ({error.strerror}): give a path in a folder that you may write to"
        ) from error
