"""The interface of a journal: the one durable record of a run, from which everything else is rebuilt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from iota.protocol.receipts import ReceiptBatch
from orchestrator.coordinator import Entry


class JournalError(Exception):
    """The journal refused or failed an operation."""


class JournalUnavailable(JournalError):
    """Nothing was stored (disk full, I/O error); the same append may succeed later."""


class JournalBroken(JournalError):
    """The journal no longer holds what it must: stop, and start again from what it does hold."""


class JournalRefused(JournalError, ValueError):
    """The file cannot be this run's journal now; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry to append. `signature` is the batch signature of a `Said` with receipts."""

    entry: Entry
    signature: str = ""


class Journal(Protocol):
    """Append-only, in order, durable on return. One writer at a time, which the journal enforces."""

    def append(self, records: Sequence[Record], highest_nonce: int) -> None:
        """Store all records in this order, or none.

        `highest_nonce` (ns) is kept with them: requests signed up to it are not taken again.

        Raises:
            JournalUnavailable: nothing was stored.
            JournalBroken: what was stored is not known.
        """
        ...

    def replay(self) -> Iterator[Entry]:
        """Every entry, in the order of appending."""
        ...

    @property
    def highest_nonce(self) -> int:
        """That of the last append, 0 at first."""
        ...

    def receipts(self, hotkey: str, epoch: int) -> list[ReceiptBatch]:
        """The batches with receipts of `epoch`, in order, as their miner signed them."""
        ...

    def close(self) -> None: ...
