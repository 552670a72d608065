"""The base that this replica holds: read from its disk, made from the run's seed, fetched, or merged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from iota.client.run_objects import RunObjects
from iota.compute.commitment import commitment
from iota.compute.state import StageState, save_state
from iota.outer.base import base_roots, initial_base, named_weights, read_base
from iota.outer.base_values import BaseRoots, next_base
from iota.outer.merged_part import read_merged_stage
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError
from iota.protocol.frames import StoredObject
from iota.spec import RunSpec
from iota.store import StoreError
from miner.core.effects import ApplyMerge, FetchBase
from miner.core.facts import BaseHeld
from miner.device import DeviceThread
from miner.op_records import StateLost
from miner.ops import OpRunner
from miner.retry import persist

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class BaseKeeper:
    """Holds the newest base. It and its epoch's start state are on disk before the core is told of it."""

    spec: RunSpec
    runner: OpRunner
    objects: RunObjects
    device: DeviceThread
    _base: OuterState | None = None

    async def from_disk(self, epoch: int) -> BaseHeld:
        """Continue from the base of `epoch` that an earlier process left on disk.

        Raises StateLost if it is damaged.
        """
        load = self.runner.disk.load_base
        try:
            self._base, roots = await asyncio.to_thread(load, self.spec, self.runner.stage, epoch)
        except PartError as error:
            raise StateLost(f"the base of epoch {epoch} on this disk is damaged: {error}") from error
        return BaseHeld(epoch, roots.digest)

    async def fetch(self, effect: FetchBase, urls: Mapping[str, str]) -> BaseHeld:
        """Fetch a base from the store, or make the base of epoch 0 from the seed.

        Raises StateLost if the parts are unavailable or the digest differs from the run's.
        """
        check_named(self.spec, effect)
        if effect.parts:
            base = await self._fetched(f"the base of epoch {effect.epoch}", effect.parts, urls, read_base)
        else:
            base = await self.device.run(initial_base, self.spec, self.runner.stage)
        roots = await asyncio.to_thread(base_roots, self.spec, base)
        check_digest(self.spec, self.runner.stage, effect, roots.digest)
        self.runner.disk.forget_feedback(effect.epoch)
        how = f"fetched {megabytes(effect.parts)}" if effect.parts else "made from the seed"
        return await self._keep(
            how,
            effect.epoch,
            base,
            roots,
            StageState(named_weights(self.spec, self.runner.stage, base.weights)),
        )

    async def apply(self, effect: ApplyMerge, urls: Mapping[str, str]) -> BaseHeld:
        """Make the next base from the held one and a merge. Raises StateLost if the merge is unavailable."""
        base = self._held
        if effect.parts:
            what = f"the merge of epoch {effect.epoch}"
            merged = await self._fetched(what, effect.parts, urls, read_merged_stage)
            base = await asyncio.to_thread(next_base, self.spec, effect.epoch, base, merged)

        roots = await asyncio.to_thread(base_roots, self.spec, base)

        def rebased() -> StageState:
            weights = named_weights(self.spec, self.runner.stage, base.weights)
            if not effect.trained:
                return StageState(weights)
            self.runner.engine.rebase(weights)
            return self.runner.engine.state()

        if not effect.trained:
            self.runner.disk.forget_feedback(effect.epoch + 1)
        how = f"merged epoch {effect.epoch} ({megabytes(effect.parts)})"
        return await self._keep(how, effect.epoch + 1, base, roots, await self.device.run(rebased))

    async def _keep(
        self, how: str, epoch: int, base: OuterState, roots: BaseRoots, start: StageState
    ) -> BaseHeld:
        disk = self.runner.disk

        def keep() -> None:
            # The base last: `newest_base` then never finds a base without its start state.
            save_state(start, disk.start_state(epoch), commitment(start, self.spec.outer.part_elements))
            disk.save_base(self.spec, epoch, base, roots)
            disk.forget_delta(epoch - 1)

        await asyncio.to_thread(keep)
        log.info("%s: the base of epoch %d is on disk", how, epoch)
        self._base = base
        self.runner.log.forget_before(epoch)
        return BaseHeld(epoch, roots.digest)

    async def _fetched(
        self,
        what: str,
        parts: Sequence[StoredObject],
        urls: Mapping[str, str],
        read: Callable[[RunSpec, int, Sequence[bytes]], T],
    ) -> T:
        """Parts that this replica cannot continue without, decoded by `read`. Outlasts store outages.

        Raises StateLost if the parts are missing or differ from what was announced.
        """

        async def attempt(again: bool) -> T:
            data = await self.objects.all_stored(parts, {} if again else urls)
            return await asyncio.to_thread(read, self.spec, self.runner.stage, data)

        return await needed(what, attempt)

    @property
    def _held(self) -> OuterState:
        assert self._base is not None, "the core asks for a merge only with a base held"
        return self._base


async def needed(what: str, attempt: Callable[[bool], Awaitable[T]]) -> T:
    """What a replica cannot continue without, by `persist`. Raises StateLost where it cannot be had."""
    try:
        return await persist(f"fetching {what}", attempt)
    except (StoreError, PartError) as error:
        raise StateLost(f"{what} cannot be had: {type(error).__name__}: {error}") from error


def check_named(spec: RunSpec, effect: FetchBase) -> None:
    """Raise StateLost where a base would be made from the seed, and the run has existing weights."""
    if spec.init is not None and not effect.parts:
        raise StateLost("the run starts from existing weights, and the orchestrator names none")


def check_digest(spec: RunSpec, stage: int, effect: FetchBase, digest: str) -> None:
    """Raise StateLost where a base has another digest than the orchestrator, or the spec, says."""
    expected = {effect.digest} - {None}
    if spec.init is not None and effect.epoch == 0:
        expected.add(spec.init.digests[stage])
    if expected - {digest}:
        raise StateLost(f"this device's base of epoch {effect.epoch} has another digest than the run's")


def megabytes(parts: Sequence[StoredObject]) -> str:
    """The size of all parts, for the log."""
    return f"{sum(part.size for part in parts) / 1e6:.1f} MB"
