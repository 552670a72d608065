"""The journal: append-only, durable, one writer. `journal` has the interface, `sqlite` the implementation,
`reading` reads one without writing to it."""

from orchestrator.journal.journal import Journal, JournalBroken, JournalRefused, JournalUnavailable, Record
from orchestrator.journal.reading import read_journal
from orchestrator.journal.sqlite import SqliteJournal

__all__ = [
    "Journal",
    "JournalBroken",
    "JournalRefused",
    "JournalUnavailable",
    "Record",
    "SqliteJournal",
    "read_journal",
]
