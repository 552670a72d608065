"""A model of a miner's disk: what survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from iota.protocol.receipts import GENESIS, OpKey, Receipt, ReceiptBatch
from miner.receipt_log import BATCH


@dataclass
class VirtualDisk:
    bases: dict[int, str] = field(default_factory=dict)
    """epoch -> digest of its base; the state that the epoch starts from is kept with it."""
    count: int = 0
    head: str = GENESIS
    unstored: list[Receipt] = field(default_factory=list)
    """Receipts that the orchestrator is not known to have, in order."""
    _receipts: dict[OpKey, Receipt] = field(default_factory=dict)

    @property
    def newest_base(self) -> int | None:
        return max(self.bases, default=None)

    def continue_from(self, count: int, head: str) -> None:
        """Line up with the receipts that the orchestrator has."""
        if count > self.count:
            self.count, self.head = count, head
            self._receipts.clear()
            self.unstored.clear()
        self.stored(count)

    def stored(self, count: int) -> None:
        """The orchestrator has everything up to `count`."""
        self.unstored = [receipt for receipt in self.unstored if receipt.seq > count]

    def record(self, key: OpKey, **fields: Any) -> None:
        """Write an op's receipt; one that is there already, from before a kill, stays the only one."""
        if key in self._receipts:
            return
        epoch, step, microbatch, attempt, kind = key
        place = {"epoch": epoch, "step": step, "microbatch": microbatch, "attempt": attempt}
        self.append(Receipt(seq=self.count + 1, kind=kind, previous=self.head, **place, **fields))

    def append(self, receipt: Receipt) -> None:
        """Add a receipt that continues the chain."""
        self._receipts[receipt.key] = receipt
        self.unstored.append(receipt)
        self.count, self.head = receipt.seq, receipt.content_digest()

    def batch(self, announced: int, sign: Callable[[str], str]) -> ReceiptBatch | None:
        """The next receipts up to `announced` that are not stored; `sign` signs the digest of the last."""
        receipts = tuple(r for r in self.unstored if r.seq <= announced)[:BATCH]
        if not receipts:
            return None
        return ReceiptBatch(receipts=receipts, signature=sign(receipts[-1].content_digest()))
