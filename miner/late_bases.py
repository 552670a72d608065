"""Bases of a run with overlap: made part by part on the disk, since the next epoch trains meanwhile.

They are those of `miner.bases`, to the bit, without a copy of a base in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from iota.client.run_objects import RunObjects
from iota.console.counts import counted
from iota.objects import part_sizes
from iota.outer.base_values import next_base, read_partition, seed_partitions
from iota.outer.merged_part import read_merged
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError, Vector
from iota.protocol.frames import StoredObject
from iota.spec import RunSpec
from miner.bases import check_digest, check_named, megabytes, needed
from miner.core.effects import ApplyMerge, FetchBase
from miner.core.facts import BaseHeld
from miner.disk import BaseWriter
from miner.op_records import StateLost
from miner.ops import OpRunner

log = logging.getLogger(__name__)

T = TypeVar("T")

_AT_ONCE: Final = 4
"""Parts that are fetched at a time, and are in memory together."""


@dataclass
class LateBases:
    """Puts bases on the disk before the core is told of them. Nothing of a replica's training changes."""

    spec: RunSpec
    runner: OpRunner
    objects: RunObjects

    async def from_disk(self, epoch: int) -> BaseHeld:
        """Continue from the base of `epoch` that an earlier process left on disk.

        Raises StateLost if it is damaged.
        """
        held = self.runner.disk.base_partitions(self.spec, self.runner.stage, epoch)
        try:
            await asyncio.to_thread(lambda: sum(1 for _ in held))
        except PartError as error:
            raise StateLost(f"the base of epoch {epoch} on this disk is damaged: {error}") from error
        return BaseHeld(epoch, self.runner.disk.base_roots(epoch).digest)

    async def fetch(self, effect: FetchBase, urls: Mapping[str, str]) -> BaseHeld:
        """Fetch a base from the store, or make the base of epoch 0 from the seed.

        Raises StateLost if the parts are unavailable or the digest differs from the run's.
        """
        what = f"the base of epoch {effect.epoch}"
        check_named(self.spec, effect)
        with self.runner.disk.new_base(self.spec, effect.epoch) as made:
            if effect.parts:
                async for partition in self._fetched(what, effect.parts, urls, self._read_partition):
                    await asyncio.to_thread(made.write, partition)
            else:
                await asyncio.to_thread(self._write_seed, made)
            digest = made.roots().digest
            check_digest(self.spec, self.runner.stage, effect, digest)
        how = f"fetched {megabytes(effect.parts)}" if effect.parts else "made from the seed"
        log.info("%s: the base of epoch %d is on disk", how, effect.epoch)
        return BaseHeld(effect.epoch, digest)

    async def apply(self, effect: ApplyMerge, urls: Mapping[str, str]) -> BaseHeld:
        """Make the next base from the held one and a merge. Raises StateLost if the merge is unavailable."""
        epoch, disk, what = effect.epoch, self.runner.disk, f"the merge of epoch {effect.epoch}"
        before = disk.base_partitions(self.spec, self.runner.stage, epoch)

        def advance(made: BaseWriter, merged: Vector | None) -> None:
            held = next(before)
            made.write(held if merged is None else next_base(self.spec, epoch, held, merged))

        try:
            with disk.new_base(self.spec, epoch + 1) as made:
                if effect.parts:
                    async for merged in self._fetched(what, effect.parts, urls, self._read_merged):
                        await asyncio.to_thread(advance, made, merged)
                else:
                    for _ in part_sizes(self.spec, self.runner.stage):
                        await asyncio.to_thread(advance, made, None)
                await asyncio.to_thread(next, before, None)  # only its end says that nothing is damaged
        except PartError as error:
            raise StateLost(f"the base of epoch {epoch} on this disk is damaged: {error}") from error
        disk.forget_used_delta(epoch)
        log.info(
            "merged epoch %d (%s): the base of epoch %d is on disk", epoch, megabytes(effect.parts), epoch + 1
        )
        return BaseHeld(epoch + 1, made.roots().digest)

    def _write_seed(self, made: BaseWriter) -> None:
        for partition in seed_partitions(self.spec, self.runner.stage):
            made.write(partition)

    def _read_partition(self, data: bytes, size: int) -> OuterState:
        return read_partition(self.spec, data, size)

    def _read_merged(self, data: bytes, size: int) -> Vector:
        return read_merged(self.spec.outer.codec, data, size)

    async def _fetched(
        self,
        what: str,
        parts: Sequence[StoredObject],
        urls: Mapping[str, str],
        read: Callable[[bytes, int], T],
    ) -> AsyncIterator[T]:
        """Parts that this replica cannot continue without, decoded by `read`. Outlasts store outages.

        Raises StateLost if parts are missing or differ from what was announced.
        """
        sizes = part_sizes(self.spec, self.runner.stage)
        if len(parts) != len(sizes):
            raise StateLost(f"{what} has {counted(len(parts), 'part')} where the stage has {len(sizes)}")
        for first in range(0, len(sizes), _AT_ONCE):
            group = slice(first, first + _AT_ONCE)
            attempt = partial(self._group, parts[group], sizes[group], urls, read)
            for each in await needed(what, attempt):
                yield each

    async def _group(
        self,
        parts: Sequence[StoredObject],
        sizes: Sequence[int],
        urls: Mapping[str, str],
        read: Callable[[bytes, int], T],
        again: bool,
    ) -> list[T]:
        data = await self.objects.all_stored(parts, {} if again else urls)
        return await asyncio.to_thread(lambda: list(map(read, data, sizes)))
