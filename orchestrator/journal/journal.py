"""Interface of the journal, the durable record of a run: the coordinator's state is rebuilt from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from iota.protocol.receipts import ReceiptBatch
from orchestrator.coordinator import Entry


class JournalUnavailable(Exception):
    """Nothing was stored (disk full, I/O error). The same append may succeed later."""


class JournalBroken(Exception):
    """The file differs from what was appended. The process must stop; a restart replays the file."""


class JournalRefused(ValueError):
    """The file cannot be used as this run's journal. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry to append. `signature` is the batch signature of a `Exchanged` with receipts."""

    entry: Entry
    signature: str = ""


class Journal(Protocol):
    """An append-only, durable sequence of entries. It enforces that there is one writer at a time."""

    def append(self, records: Sequence[Record], highest_nonce: int) -> None:
        """Store all records in this order, or none; on return they are on disk.

        `highest_nonce` (ns) is stored with them: after a restart, requests signed before it are refused.

        Raises:
            JournalUnavailable: nothing was stored.
            JournalBroken: it is not known whether they were stored.
        """

    def replay(self) -> Iterator[Entry]:
        """Every entry, in the order of appending."""

    @property
    def highest_nonce(self) -> int:
        """The value of the last append; 0 for an empty journal."""

    def receipts(self, hotkey: str, epoch: int) -> list[ReceiptBatch]:
        """A miner's batches from the first to the last that has receipts of `epoch`, as it signed them."""

    def close(self) -> None:
        """Release the file. No other method may be called after it."""
