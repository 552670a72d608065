"""A journal in memory: what a server needs of a journal, and nothing of SQLite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from iota.protocol.receipts import ReceiptBatch
from orchestrator.coordinator import Entry, Exchanged
from orchestrator.journal import JournalBroken, JournalUnavailable, Record


class MemoryJournal:
    """A `Journal` that lasts as long as the object, so that a test may restart a server."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.groups: list[int] = []
        """Entries of each append."""
        self.highest_nonce = 0
        self.full = False
        """Appends store nothing and say so."""
        self.broken = False
        """Appends cannot say what they stored."""

    def append(self, records: Sequence[Record], highest_nonce: int) -> None:
        if self.broken:
            raise JournalBroken("its memory is gone")
        if self.full:
            raise JournalUnavailable("its memory is full")
        self.records += records
        self.groups.append(len(records))
        self.highest_nonce = highest_nonce

    def replay(self) -> Iterator[Entry]:
        return iter([record.entry for record in self.records])

    def receipts(self, hotkey: str, epoch: int) -> list[ReceiptBatch]:
        own = [
            ReceiptBatch(receipts=record.entry.receipts, signature=record.signature)
            for record in self.records
            if isinstance(record.entry, Exchanged) and record.entry.hotkey == hotkey and record.entry.receipts
        ]
        touch = [n for n, batch in enumerate(own) if any(r.epoch == epoch for r in batch.receipts)]
        return own[touch[0] : touch[-1] + 1] if touch else []

    def close(self) -> None:
        pass
