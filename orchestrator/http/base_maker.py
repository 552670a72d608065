"""Makes bases again whose replicas disagree on the digest, and records it."""

from __future__ import annotations

import asyncio
from typing import Final

from blake3 import blake3

from iota.console.watch import Watch
from iota.objects import part_sizes
from iota.outer.base_values import next_base, seed_base
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError, read_part
from iota.protocol.frames import StoredObject
from iota.protocol.problems import Problem
from iota.retry import Backoff
from iota.store import ObjectStore, StoreError
from orchestrator.coordinator import BaseInputs, BaseMade, Coordinator
from orchestrator.http.base_hasher import BaseHasher, base_partition, stored_bytes
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder

_BACKOFF: Final = Backoff(first_s=0.5, max_s=10.0)


class BaseMaker:
    """Makes one disputed base at a time, in a thread, with one partition in memory.

    A base 0 that follows from the seed is in memory as a whole. What it finds is an entry of the journal, so
    that a replay needs no store. While the store does not answer it tries again.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        recorder: Recorder,
        store: ObjectStore,
        metrics: Metrics,
        scale: float = 1.0,
    ) -> None:
        """`scale` is that of `Watch`."""
        self._coordinator, self._recorder, self._store = coordinator, recorder, store
        self._metrics = metrics
        self._watch = Watch("the object store, for a base that is disputed", scale=scale)
        self._due = asyncio.Event()

    def wake(self) -> None:
        """Make `run` look for disputed bases."""
        if self._coordinator.disputed_bases():
            self._due.set()

    async def run(self) -> None:
        """Make disputed bases until cancelled."""
        while True:
            for inputs in self._coordinator.disputed_bases():
                await self._settle(inputs)
            await self._due.wait()
            self._due.clear()

    async def _settle(self, inputs: BaseInputs) -> None:
        """Make one base and record its digest; try again while it is disputed."""
        failures = 0
        while inputs in self._coordinator.disputed_bases():
            try:
                digest = await self._made(inputs)
                await self._recorder.record(
                    BaseMade(at=self._recorder.stamp(), epoch=inputs.epoch, stage=inputs.stage, digest=digest)
                )
            except (PartError, StoreError, OSError, TimeoutError, Problem) as error:
                failures += 1
                self._metrics.failure("store")
                pause_s = _BACKOFF.pause_s(failures)
                self._watch.failed(error, pause_s)
                await asyncio.sleep(pause_s)
            else:
                self._watch.passed()

    async def _made(self, inputs: BaseInputs) -> str:
        """The digest of the base. Raises PartError where the store has other bytes than are recorded."""
        spec, start = self._coordinator.spec, None
        if inputs.before is None:
            start = await asyncio.to_thread(seed_base, spec, inputs.stage)
        with BaseHasher(spec) as hasher:
            for number, size in enumerate(part_sizes(spec, inputs.stage)):
                if inputs.before is None:
                    assert start is not None
                    first = number * spec.outer.part_elements
                    own = slice(first, first + size)
                    before = OuterState(start.weights[own], start.momentum[own])
                else:
                    data = await self._read(inputs.before.parts[number])
                    before = await asyncio.to_thread(base_partition, spec, data, size)
                merged = await self._read(inputs.merged[number]) if inputs.merged else None
                await asyncio.to_thread(self._take, hasher, inputs.epoch, before, merged, size)
            return await asyncio.to_thread(hasher.digest)

    def _take(
        self, hasher: BaseHasher, epoch: int, before: OuterState, merged: bytes | None, size: int
    ) -> None:
        after = before
        if merged is not None:
            after = next_base(self._coordinator.spec, epoch - 1, before, read_part(merged, size))
        hasher.take(after)

    async def _read(self, part: StoredObject) -> bytes:
        data = await stored_bytes(self._store, part)
        if (await asyncio.to_thread(blake3, data)).hexdigest() != part.digest:
            raise PartError(f"{part.key} holds other bytes than are recorded")
        return data
