"""The miner's receipt chain on its own disk, as JSON lines.

A receipt is flushed to disk before the frame that it describes is sent, so a crash cannot fork the
chain. The first line names the run, the hotkey, and the receipt (number and digest) that the chain
continues from.
"""

from __future__ import annotations

import json
import os
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

from iota.files import write_whole
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.protocol.receipts import GENESIS, RECEIPTS_DOMAIN, OpKey, Receipt, ReceiptBatch, signed_payload

BATCH = 256
"""Receipts in one signed batch. At most `MAX_RECEIPTS` of the protocol."""


class ReceiptLog:
    """Append-only file of one miner's receipts in one run. Only one thread at a time may append.

    Raises ValueError if the file is of another run or hotkey.
    """

    def __init__(self, path: Path, run: str, hotkey: Hotkey) -> None:
        self._path, self._run, self._hotkey = path, run, hotkey
        self.count = 0
        self.head = GENESIS
        self._unstored: deque[Receipt] = deque()
        self._earlier: dict[OpKey, Receipt] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._load()
        else:
            self._begin(0, GENESIS)
        self._file = path.open("ab")

    def _begin(self, count: int, head: str) -> None:
        first = {"run": self._run, "hotkey": self._hotkey.ss58, "count": count, "head": head}
        write_whole(self._path, json.dumps(first).encode() + b"\n")
        self.count, self.head = count, head

    def _load(self) -> None:
        lines = self._path.read_bytes().split(b"\n")
        whole, torn = lines[:-1], lines[-1]
        first = json.loads(whole[0])
        if (first["run"], first["hotkey"]) != (self._run, self._hotkey.ss58):
            raise ValueError(
                f"{self._path} holds the receipts of another run or hotkey: give this miner a data directory"
                f" of its own (--data-dir)"
            )
        self.count, self.head = first["count"], first["head"]
        for line in whole[1:]:
            receipt = Receipt.model_validate_json(line)
            self._take(receipt)
            self._earlier[receipt.key] = receipt
        if torn:  # a crash cut the write short, so nothing was sent that rests on this receipt
            with self._path.open("r+b") as file:
                file.truncate(self._path.stat().st_size - len(torn))

    def _take(self, receipt: Receipt) -> None:
        self.count, self.head = receipt.seq, receipt.content_digest()
        self._unstored.append(receipt)

    def continue_from(self, count: int, head: str) -> None:
        """Continue from receipt `count` with digest `head`: the orchestrator has it, this disk does not."""
        self._file.close()
        self._unstored.clear()
        self._earlier.clear()
        self._begin(count, head)
        self._file = self._path.open("ab")

    def find(self, key: OpKey) -> Receipt | None:
        """The receipt that an earlier process of this miner wrote for an op; None if it never ran it."""
        return self._earlier.get(key)

    def forget_before(self, epoch: int) -> None:
        """Free receipts for `find` of epochs that no restart can run again."""
        self._earlier = {k: r for k, r in self._earlier.items() if k[0] >= epoch}

    def append(self, fields: dict[str, Any]) -> Receipt:
        """Chain, write and flush one receipt.

        Raises OSError if the disk is full; the file is then as it was before.
        """
        receipt = Receipt(seq=self.count + 1, previous=self.head, **fields)
        line = receipt.canonical() + b"\n"
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
        self._take(receipt)
        return receipt

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
