"""What a validator reads of a `World` in place of a run's servers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from iota.compute.tokens import Tokens
from iota.protocol.messages import ObjectReply, ObjectRequest
from iota.protocol.receipts import Receipt, ReceiptBatch
from iota.protocol.records import BaseRecord, EpochRecord
from iota.store import ObjectMissing, ObjectTooLarge
from tests.support.audited_miners import Miner, batch


class WorldSources:
    """The answers of the orchestrator, the store and the data, from what a world has."""

    run: str
    miners: list[Miner]
    records: dict[int, EpochRecord]
    bases: list[BaseRecord]
    store: dict[str, bytes]
    _batches: Callable[[int, int, int], Tokens]

    def of_epoch(self, epoch: int, miner: Miner) -> list[Receipt]:
        return [r for r in miner.receipts if r.epoch == epoch]

    async def record(self, epoch: int) -> bytes:
        return self.records[epoch].model_dump_json().encode()

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        return next(base for base in self.bases if (base.epoch, base.stage) == (epoch, stage))

    async def base_epochs(self) -> list[int]:
        return sorted({base.epoch for base in self.bases})

    async def receipts(self, epoch: int, hotkey: str) -> list[ReceiptBatch]:
        miner = next(m for m in self.miners if m.hotkey == hotkey)
        return [batch(self.run, miner.key, self.of_epoch(epoch, miner))]

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        return ObjectReply(url=request.key, expires=time.time() + 3600)

    async def get(
        self, url: str, max_bytes: int, deadline_s: float, part: tuple[int, int] | None = None, **_: object
    ) -> bytes:
        if url not in self.store:
            raise ObjectMissing(url)
        data = self.store[url][slice(*part)] if part else self.store[url]
        if len(data) > max_bytes:
            raise ObjectTooLarge(f"{url} has {len(data)} bytes, at most {max_bytes} are taken")
        return data

    async def microbatch(self, epoch: int, step: int, index: int) -> Tokens:
        return self._batches(epoch, step, index)

    def blank_tokens(self) -> Tokens:
        return np.zeros_like(self._batches(0, 0, 0))
