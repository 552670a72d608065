"""The journal: append-only and durable, one writer; `sqlite` holds it in one file.

`journal` is the interface and its errors.
"""

from orchestrator.journal.journal import (
    Journal,
    JournalBroken,
    JournalError,
    JournalRefused,
    JournalUnavailable,
    Record,
)
from orchestrator.journal.sqlite import SqliteJournal

__all__ = [
    "Journal",
    "JournalBroken",
    "JournalError",
    "JournalRefused",
    "JournalUnavailable",
    "Record",
    "SqliteJournal",
]
