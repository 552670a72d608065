"""Makes base 0 of each stage itself, and bases that replicas do not decide, or do not store."""

from __future__ import annotations

import asyncio

from blake3 import blake3

from iota.objects import BaseKey, part_sizes
from iota.outer.base_values import (
    BaseHasher,
    next_partition,
    read_partition,
    seed_partitions,
    write_partition,
)
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError
from iota.protocol.frames import StoredObject
from orchestrator.coordinator import BaseInputs, BaseMade
from orchestrator.http.disputes import Disputes
from orchestrator.http.store_reads import verified_part
from orchestrator.http.store_tries import PASSING


class BaseMaker(Disputes[BaseInputs]):
    """Makes disputed bases in a thread, with one partition in memory, or two copies of a tensor of the seed.

    For base 0 of a stage of 6.5 billion parameters 26 GB of weights are generated, at about 100 million
    weights a second on one core, and hashed: about two minutes. One that is to be stored is written part by
    part as it is made.
    """

    what = "a base that is disputed, or that no replica stored"
    errors = (*PASSING, PartError)

    def disputed(self) -> list[BaseInputs]:
        """The bases that the orchestrator is to make itself."""
        return self._coordinator.disputed_bases()

    async def made(self, dispute: BaseInputs) -> BaseMade:
        """Make one base. Raises PartError where the store has other bytes than are recorded."""
        digest, parts = await self._make(dispute)
        return BaseMade(
            at=self._recorder.stamp(), epoch=dispute.epoch, stage=dispute.stage, digest=digest, parts=parts
        )

    async def _make(self, inputs: BaseInputs) -> tuple[str, tuple[StoredObject, ...]]:
        """The digest, and the parts if they are to be stored."""
        spec = self._coordinator.spec
        start, stored = seed_partitions(spec, inputs.stage), []

        hasher = BaseHasher(spec)

        def take(before: OuterState, merged: bytes | None) -> OuterState:
            partition = next_partition(spec, inputs.epoch - 1, before, merged)
            hasher.take(partition)
            return partition

        for number, size in enumerate(part_sizes(spec, inputs.stage)):
            if inputs.before is None:
                before = await asyncio.to_thread(next, start)
            else:
                data = await verified_part(self._store, inputs.before.parts[number])
                before = await asyncio.to_thread(read_partition, spec, data, size)
            merged = await verified_part(self._store, inputs.merged[number]) if inputs.merged else None
            partition = await asyncio.to_thread(take, before, merged)
            if inputs.store:
                stored.append(await self._put(inputs, number, partition))
        return hasher.roots().digest, tuple(stored)

    async def _put(self, inputs: BaseInputs, number: int, partition: OuterState) -> StoredObject:
        """Store one part under a key of the orchestrator; one that is there from an earlier try is kept."""
        spec = self._coordinator.spec
        data = await asyncio.to_thread(write_partition, spec, partition)
        key = str(BaseKey(spec.id, inputs.epoch, inputs.stage, number))
        await self._store.put(key, data)
        return StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data))
