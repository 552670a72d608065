"""The miner's receipt chain on its own disk (`miner.receipt_file` has its form).

A receipt is flushed to disk before the frame that it describes is sent, so a crash cannot fork the
chain. A damaged file is kept under another name, and the chain goes on from the last intact receipt.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from itertools import count as numbers
from itertools import islice
from pathlib import Path
from typing import Any

from iota.files import whole_file, write_whole
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.protocol.receipts import (
    GENESIS,
    RECEIPTS_DOMAIN,
    OpKey,
    OpKind,
    Receipt,
    ReceiptBatch,
    signed_payload,
)
from miner.receipt_file import LogDamaged, LogHeader, read_header, read_receipts, write_line

log = logging.getLogger(__name__)

_EPOCHS = 8
"""Epochs whose receipts `since` finds: seals come a block after their epoch, or after the chain's outage."""
BATCH = 256
"""Receipts in one signed batch. At most `MAX_RECEIPTS` of the protocol."""


class ReceiptLog:
    """Append-only file of one miner's receipts in one run. Only one thread at a time may append.

    Of an earlier process's receipts those of its last two epochs are kept in memory: older ones are stored by
    the orchestrator, and no restart runs their ops again.

    Raises ValueError if the file holds receipts of another run or hotkey.
    """

    def __init__(self, path: Path, run: str, hotkey: Hotkey) -> None:
        self._path, self._run, self._hotkey = path, run, hotkey
        self.count = 0
        self.head = GENESIS
        self.newest_epoch = -1
        """The newest epoch of a receipt; -1 where none is known."""
        self._unstored: deque[Receipt] = deque()
        self._earlier: dict[OpKey, Receipt] = {}
        self._begun: dict[int, tuple[int, int, str]] = {}
        """epoch -> (bytes of the file, receipts, digest of the last) before its first receipt in the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._load()
        else:
            self._begin(0, GENESIS)
        self._file = path.open("ab")

    def _begin(self, count: int, head: str) -> None:
        header = LogHeader(run=self._run, hotkey=self._hotkey.ss58, count=count, head=head)
        write_whole(self._path, write_line(header))
        self.count, self.head = count, head

    def _load(self) -> None:
        intact, damage = 0, None
        with self._path.open("rb") as file:
            try:
                header = read_header(file)
                if (header.run, header.hotkey) != (self._run, self._hotkey.ss58):
                    if header.count == 0 and not file.read(1):
                        return self._begin(0, GENESIS)
                    raise ValueError(
                        f"{self._path} holds the receipts of another run or hotkey: give this miner a data"
                        " directory of its own (--data-dir)"
                    )
                self.count, self.head, intact = header.count, header.head, file.tell()
                for receipt, digest in read_receipts(file, header):
                    self._note_begin(receipt, intact)
                    self._recall(receipt, digest)
                    intact = file.tell()
            except LogDamaged as error:
                damage = error
        if damage is not None:
            self._repair(intact, damage)
        else:
            os.truncate(self._path, intact)  # without a last line that was cut short

    def _recall(self, receipt: Receipt, digest: str) -> None:
        """Take a receipt of an earlier process; with the first one of an epoch, forget old ones."""
        if not self._unstored or receipt.epoch > self._unstored[-1].epoch:
            self.forget_before(receipt.epoch - 1)
            while self._unstored and self._unstored[0].epoch < receipt.epoch - 1:
                self._unstored.popleft()
        self._take(receipt, digest)
        self._earlier[receipt.key] = receipt

    def _repair(self, intact: int, damage: LogDamaged) -> None:
        """Keep the damaged file under another name, and go on from its first `intact` bytes."""
        with self._path.open("rb") as file, whole_file(self._path, durable=True) as part:
            with part.open("wb") as whole:
                shutil.copyfileobj(file, whole)
                whole.truncate(intact)
            aside = self._set_aside()
        if not intact:
            self._begin(0, GENESIS)
        log.error(
            "%s is damaged after receipt %d (%s): it is kept as %s. Later receipts are lost, with the pay for"
            " their work, unless the orchestrator has stored them",
            self._path,
            self.count,
            damage,
            aside.name,
        )

    def _set_aside(self) -> Path:
        """Give the file another name, which is returned."""
        names = (self._path.with_name(f"{self._path.name}.damaged-{n}") for n in numbers(1))
        aside = next(name for name in names if not name.exists())
        self._path.rename(aside)
        return aside

    def _take(self, receipt: Receipt, digest: str) -> None:
        self.count, self.head = receipt.seq, digest
        self.newest_epoch = max(self.newest_epoch, receipt.epoch)
        self._unstored.append(receipt)

    def continue_from(self, count: int, head: str) -> None:
        """Go on from what the orchestrator has stored: `count` receipts, the last with the digest `head`.

        Does nothing if this log contains that receipt. If the orchestrator has more, its receipts count and
        nothing is lost. If it has others, this log is kept under another name.
        """
        if self._digest_of(count) == head:
            self.stored(count)
            return
        self._file.close()
        if count <= self.count:
            aside = self._set_aside()
            log.error(
                "the orchestrator's receipt %d is another than the one in %s: the file is kept as %s, and the"
                " pay for the work of its receipts %d to %d is lost",
                count,
                self._path,
                aside.name,
                count + 1,
                self.count,
            )
        elif self.count:
            log.warning(
                "the orchestrator has receipts up to %d, this disk up to %d: going on from its last one",
                count,
                self.count,
            )
        self._unstored.clear()
        self._earlier.clear()
        self._begun.clear()
        self._begin(count, head)
        self._file = self._path.open("ab")

    def _digest_of(self, count: int) -> str | None:
        """Digest of receipt number `count`; None if it is not in memory."""
        if count == self.count:
            return self.head
        place = count + 1 - self._unstored[0].seq if self._unstored else -1
        return self._unstored[place].previous if 0 <= place < len(self._unstored) else None

    def find(self, key: OpKey) -> Receipt | None:
        """The receipt that an earlier process of this miner wrote for an op; None if it never ran it.

        Of a MERGE also one of this process: an orchestrator may ask for a part again.
        """
        return self._earlier.get(key)

    def forget_before(self, epoch: int) -> None:
        """Free receipts for `find` of epochs that no restart can run again.

        Those of merges of the epoch before stay: another stage's may be asked for again until `epoch` begins.
        """
        merges = {k: r for k, r in self._earlier.items() if r.kind is OpKind.MERGE and k[0] == epoch - 1}
        self._earlier = merges | {k: r for k, r in self._earlier.items() if k[0] >= epoch}

    def begin_life(self) -> None:
        """Free the receipts of ops for `find`: a new life repeats none, but may have the same keys."""
        self._earlier = {key: r for key, r in self._earlier.items() if r.kind is OpKind.MERGE}

    def append(self, fields: dict[str, Any]) -> Receipt:
        """Chain, write and flush one receipt.

        Raises OSError if the disk is full; the file is then as it was before.
        """
        receipt = Receipt(seq=self.count + 1, previous=self.head, **fields)
        line = write_line(receipt)
        start = self._file.tell()
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            # In this order: the old handle may write the rest of its buffer when it is released.
            self._file = self._path.open("ab")
            self._file.truncate(start)
            raise
        self._note_begin(receipt, start)
        self._take(receipt, receipt.content_digest())
        if receipt.kind is OpKind.MERGE:
            self._earlier[receipt.key] = receipt
        return receipt

    def _note_begin(self, receipt: Receipt, offset: int) -> None:
        """Note where an epoch's receipts begin, with the first of them; of the newest `_EPOCHS` epochs."""
        if receipt.epoch not in self._begun:
            self._begun[receipt.epoch] = (offset, receipt.seq - 1, receipt.previous)
            for old in sorted(self._begun)[:-_EPOCHS]:
                del self._begun[old]

    def since(self, epoch: int) -> tuple[Receipt, ...]:
        """All receipts from the first of `epoch` that this file has; none for an epoch long ago.

        May be called beside the thread that appends.
        """
        begun = self._begun.get(epoch)
        if begun is None:
            return ()
        offset, count, head = begun
        before = LogHeader(run=self._run, hotkey=self._hotkey.ss58, count=count, head=head)
        with self._path.open("rb") as file:
            file.seek(offset)
            try:
                return tuple(receipt for receipt, _ in read_receipts(file, before))
            except LogDamaged as damage:
                log.error("%s is damaged: %s", self._path, damage)
                return ()

    def stored(self, count: int) -> None:
        """Free the receipts up to number `count`: the orchestrator has stored them."""
        while self._unstored and self._unstored[0].seq <= count:
            self._unstored.popleft()

    def after(self, count: int) -> ReceiptBatch | None:
        """The next signed batch after receipt number `count`; None if there is nothing to send."""
        batch = tuple(islice((r for r in list(self._unstored) if r.seq > count), BATCH))
        if not batch:
            return None
        payload = signed_payload(self._run, self._hotkey.ss58, batch[-1].content_digest())
        return ReceiptBatch(
            receipts=batch, signature=self._hotkey.sign(signing_bytes(RECEIPTS_DOMAIN, payload)).hex()
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
