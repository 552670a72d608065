"""Makes base 0 of each stage itself, and bases whose replicas disagree on the digest or say nothing of it."""

from __future__ import annotations

import asyncio

from iota.objects import part_sizes
from iota.outer.base_values import BaseHasher, next_partition, read_partition, seed_partitions
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError
from orchestrator.coordinator import BaseInputs, BaseMade
from orchestrator.http.disputes import Disputes
from orchestrator.http.store_reads import verified_part
from orchestrator.http.store_tries import PASSING


class BaseMaker(Disputes[BaseInputs]):
    """Makes disputed bases in a thread, with one partition in memory, or two copies of a tensor of the seed.

    For base 0 of a stage of 6.5 billion parameters 26 GB of weights are generated, at about 100 million
    weights a second on one core, and hashed: about two minutes. A run with an outer momentum needs as much
    room for temporary files, as for any base.
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
        spec = self._coordinator.spec
        start = seed_partitions(spec, inputs.stage)

        def take(hasher: BaseHasher, before: OuterState, merged: bytes | None) -> None:
            hasher.take(next_partition(spec, inputs.epoch - 1, before, merged))

        with BaseHasher(spec) as hasher:
            for number, size in enumerate(part_sizes(spec, inputs.stage)):
                if inputs.before is None:
                    before = await asyncio.to_thread(next, start)
                else:
                    data = await verified_part(self._store, inputs.before.parts[number])
                    before = await asyncio.to_thread(read_partition, spec, data, size)
                merged = await verified_part(self._store, inputs.merged[number]) if inputs.merged else None
                await asyncio.to_thread(take, hasher, before, merged)
            return await asyncio.to_thread(hasher.digest)
