"""Reads a run from its journal without writing to it, whether or not an orchestrator does."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pydantic import TypeAdapter

from iota.protocol.records import START_RECORDS
from iota.spec import RunSpec
from orchestrator.coordinator import Coordinator, Entry
from orchestrator.journal.journal import JournalRefused
from orchestrator.journal.sqlite import JOURNAL_VERSION

_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


def read_journal(path: Path) -> Coordinator:
    """The coordinator in the state after the journal's last entry. It takes as long as a restart does.

    Raises JournalRefused where the file is no journal, or has another version.
    """
    if not path.is_file():
        raise JournalRefused(
            f"there is no journal {path}: give the file of `iota-orchestrator start --journal`"
        )
    try:
        try:
            return _replayed(path, "mode=ro")
        except sqlite3.OperationalError:
            # In a folder that we may not write to, SQLite can only read a journal that nobody has open.
            if path.with_name(f"{path.name}-wal").exists():
                raise
            return _replayed(path, "mode=ro&immutable=1")
    except sqlite3.Error as error:
        raise JournalRefused(f"{path} cannot be read as a journal: {error}") from error


def _replayed(path: Path, options: str) -> Coordinator:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True, timeout=5.0)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != JOURNAL_VERSION:
            raise JournalRefused(
                f"{path} is of version {version}, and this release reads journals of version"
                f" {JOURNAL_VERSION}: use the release that wrote it"
            )
        row = db.execute("SELECT value FROM meta WHERE name = 'spec'").fetchone()
        if row is None:
            raise JournalRefused(f"{path} holds no run yet")
        start = db.execute("SELECT value FROM meta WHERE name = 'start'").fetchone()
        records = () if start is None else START_RECORDS.validate_json(start[0])
        coordinator = Coordinator(RunSpec.model_validate_json(row[0]), start=records)
        for (text,) in db.execute("SELECT json FROM entries ORDER BY seq"):
            coordinator.apply(_ENTRY.validate_json(text))
        return coordinator
