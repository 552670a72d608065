"""Makes merged parts and bases again from objects of the store, one partition at a time."""

from __future__ import annotations

import asyncio

from blake3 import blake3

from iota.client.contributions import read_contribution
from iota.objects import BaseKey, MergedKey, max_bytes, part_sizes
from iota.outer.base import initial_base
from iota.outer.base_values import BaseHasher, next_partition, partition_of, read_partition
from iota.outer.merge import merge_part
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError
from iota.protocol.frames import StoredObject
from iota.spec import RunSpec
from iota.store import StoreError
from validator.audits.budget import Worker
from validator.audits.sources import Objects
from validator.core import jobs
from validator.core.results import EvidenceMissing


class MergeReplay:
    """Performs the jobs of `validator.core.merges`. Methods raise EvidenceMissing for what the store lost."""

    def __init__(self, spec: RunSpec, objects: Objects, worker: Worker) -> None:
        self._spec, self._objects, self._worker = spec, objects, worker

    async def merge(self, job: jobs.ReplayMerge) -> jobs.Remade:
        """The merge of one part, from its contributions as they lie in the store."""
        given: dict[str, bytes] = {}
        for each in job.assign.contributions:
            if each.hotkey not in job.absent:
                try:
                    given[each.hotkey] = await read_contribution(self._objects.get, each.stored)
                except StoreError as error:
                    key = each.stored.key
                    raise EvidenceMissing(f"{key} cannot be had from the store: {error}") from error
        made = await self._worker.run(
            lambda: merge_part(self._spec, job.assign, lambda c: given.get(c.hotkey))
        )
        return jobs.Remade(blake3(made.data).hexdigest(), made.left_out)

    async def next_base(self, job: jobs.RemakeBase) -> str:
        """The digest (`base_digest`) of the base that a base and a merge give."""
        spec, stage = self._spec, job.base.stage
        start = None
        if job.base.epoch == 0 and spec.init is None:
            start = await asyncio.to_thread(initial_base, spec, stage)
        hasher = BaseHasher(spec)
        for number, size in enumerate(part_sizes(spec, stage)):
            before = await self._base_part(job, number, size, start)
            data = await self._merged(job, number)

            def make(before: OuterState = before, data: bytes | None = data) -> None:
                hasher.take(next_partition(spec, job.base.epoch, before, data))

            try:
                await self._worker.run(make)
            except PartError as error:
                raise EvidenceMissing(f"part {number} of the merge of stage {stage}: {error}") from error
        return hasher.roots().digest

    async def _base_part(
        self, job: jobs.RemakeBase, number: int, size: int, start: OuterState | None
    ) -> OuterState:
        """One partition of the base; `start` is base 0 where that follows from the seed."""
        if start is not None:
            return partition_of(self._spec, start, number)
        record = job.base.record
        if record is None or number >= len(record.parts):
            raise EvidenceMissing(
                f"the base of epoch {job.base.epoch}, stage {job.base.stage}, is not stored"
            )
        limit = max_bytes(
            self._spec, BaseKey(self._spec.id, job.base.epoch, job.base.stage, number), job.base.stage
        )
        data = await self._stored(record.parts[number], limit)
        try:
            return await self._worker.run(lambda: read_partition(self._spec, data, size))
        except PartError as error:
            raise EvidenceMissing(f"{record.parts[number].key}: {error}") from error

    async def _merged(self, job: jobs.RemakeBase, number: int) -> bytes | None:
        """One merged part; None where the stage keeps its base."""
        if not job.merged:
            return None
        if number >= len(job.merged):
            raise EvidenceMissing(f"the merge of stage {job.base.stage} has no part {number}")
        key = MergedKey(self._spec.id, job.base.epoch, job.base.stage, number, "")
        return await self._stored(job.merged[number], max_bytes(self._spec, key, job.base.stage))

    async def _stored(self, stored: StoredObject, limit: int) -> bytes:
        if stored.size > limit:
            raise EvidenceMissing(
                f"{stored.key} is recorded with {stored.size} bytes, at most {limit} may be"
            )
        try:
            return await self._objects.get_verified(stored)
        except StoreError as error:
            raise EvidenceMissing(f"{stored.key} cannot be had from the store: {error}") from error
