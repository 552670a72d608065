"""A model of a miner's disk: what survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from iota.protocol.frames import FrameName
from iota.protocol.receipts import GENESIS, OpKey, OpKind, Receipt, ReceiptBatch, SignedHeader
from iota.wire.transport import OutgoingFrame
from miner.receipt_log import BATCH


@dataclass
class FramesOnDisk:
    """The frames that one miner has made, and those that it has received."""

    made: dict[FrameName, OutgoingFrame] = field(default_factory=dict)
    kept: dict[FrameName, SignedHeader] = field(default_factory=dict)
    bad: set[FrameName] = field(default_factory=set)
    """Received ones that give NaN, as they were pushed."""


@dataclass
class VirtualDisk:
    """Bases, receipts and frames of one miner."""

    bases: dict[int, str] = field(default_factory=dict)
    """Digest of the base by epoch; the state at the epoch's start is kept with it."""
    count: int = 0
    """Receipts written so far."""
    head: str = GENESIS
    """Digest of the last receipt."""
    unstored: list[Receipt] = field(default_factory=list)
    """Receipts that the orchestrator has not acknowledged, in order."""
    frames: FramesOnDisk = field(default_factory=FramesOnDisk)
    _receipts: dict[OpKey, Receipt] = field(default_factory=dict)

    @property
    def newest_base(self) -> int | None:
        """The epoch of the newest base, which a join reports; None without one."""
        return max(self.bases, default=None)

    def begin_anew(self) -> None:
        """Forget the bases and frames, and the commitments of the life that ends: the next one makes its
        own."""
        self.bases.clear()
        self.frames = FramesOnDisk()
        self._receipts = {key: r for key, r in self._receipts.items() if r.kind is not OpKind.COMMIT}

    def continue_from(self, count: int, head: str) -> None:
        """Take over the orchestrator's chain of `count` receipts up to digest `head`, if it is longer."""
        if count > self.count:
            self.count, self.head = count, head
            self._receipts.clear()
            self.unstored.clear()
        self.stored(count)

    def stored(self, count: int) -> None:
        """The orchestrator acknowledges the first `count` receipts."""
        self.unstored = [receipt for receipt in self.unstored if receipt.seq > count]

    def record(self, key: OpKey, **fields: Any) -> None:
        """Write an op's receipt, unless there is one from before a kill."""
        if key in self._receipts:
            return
        epoch, step, microbatch, attempt, kind = key
        step = 0 if kind is OpKind.MERGE else step  # there it is the merged stage
        place = {"epoch": epoch, "step": step, "microbatch": microbatch, "attempt": attempt}
        self.append(Receipt(seq=self.count + 1, kind=kind, previous=self.head, **place, **fields))

    def append(self, receipt: Receipt) -> None:
        """Add a receipt that follows `head`."""
        self._receipts[receipt.key] = receipt
        self.unstored.append(receipt)
        self.count, self.head = receipt.seq, receipt.content_digest()

    def batch(self, announced: int, sign: Callable[[str], str]) -> ReceiptBatch | None:
        """The next unstored receipts up to number `announced`; `sign` signs the digest of the last."""
        receipts = tuple(r for r in self.unstored if r.seq <= announced)[:BATCH]
        if not receipts:
            return None
        return ReceiptBatch(receipts=receipts, signature=sign(receipts[-1].content_digest()))
