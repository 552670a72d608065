"""Makes bases again whose replicas disagree on the digest, and records it."""

from __future__ import annotations

import asyncio

from iota.objects import part_sizes
from iota.outer.base_values import BaseHasher, next_partition, partition_of, read_partition, seed_base
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError
from orchestrator.coordinator import BaseInputs, BaseMade
from orchestrator.http.disputes import Disputes
from orchestrator.http.store_reads import verified_part
from orchestrator.http.store_tries import PASSING


class BaseMaker(Disputes[BaseInputs]):
    """Makes disputed bases in a thread, with one partition in memory.

    A base 0 that follows from the seed is in memory as a whole.
    """

    what = "a base that is disputed"
    errors = (*PASSING, PartError)

    def disputed(self) -> list[BaseInputs]:
        """The bases that the orchestrator is to make itself."""
        return self._coordinator.disputed_bases()

    async def made(self, dispute: BaseInputs) -> BaseMade:
        """Make one base. Raises PartError where the store has other bytes than are recorded."""
        digest = await self._digest(dispute)
        return BaseMade(at=self._recorder.stamp(), epoch=dispute.epoch, stage=dispute.stage, digest=digest)

    async def _digest(self, inputs: BaseInputs) -> str:
        spec, start = self._coordinator.spec, None
        if inputs.before is None:
            start = await asyncio.to_thread(seed_base, spec, inputs.stage)

        def take(hasher: BaseHasher, before: OuterState, merged: bytes | None) -> None:
            hasher.take(next_partition(spec, inputs.epoch - 1, before, merged))

        with BaseHasher(spec) as hasher:
            for number, size in enumerate(part_sizes(spec, inputs.stage)):
                if inputs.before is None:
                    assert start is not None
                    before = partition_of(spec, start, number)
                else:
                    data = await verified_part(self._store, inputs.before.parts[number])
                    before = await asyncio.to_thread(read_partition, spec, data, size)
                merged = await verified_part(self._store, inputs.merged[number]) if inputs.merged else None
                await asyncio.to_thread(take, hasher, before, merged)
            return await asyncio.to_thread(hasher.digest)
