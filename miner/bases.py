"""The base that this replica holds: from its disk, the run's seed, the store, or a merge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from iota.client.run_objects import RunObjects
from iota.compute.state import StageState, save_state
from iota.model.layout import run_shapes
from iota.outer.base import base_digest, initial_base, next_base
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError, Vector
from iota.outer.pseudo_gradient import flatten
from iota.protocol.messages import StoredObject
from iota.spec import RunSpec
from iota.store import StoreError
from miner.core.effects import ApplyMerge, FetchBase
from miner.core.facts import BaseHeld
from miner.device import DeviceThread, unflattened
from miner.merging import fetch_base, fetch_merged
from miner.ops import OpRunner, StateLost
from miner.retry import persist

T = TypeVar("T")
FetchParts = Callable[[RunSpec, RunObjects, int, Sequence[StoredObject], Mapping[str, str]], Awaitable[T]]


@dataclass
class BaseKeeper:
    """Every base that it takes is on disk, with the state that its epoch starts from, before it is told."""

    spec: RunSpec
    runner: OpRunner
    objects: RunObjects
    device: DeviceThread
    _base: OuterState | None = None

    async def from_disk(self, epoch: int) -> BaseHeld:
        """Go on from a base that an earlier process kept."""
        self._base = self.runner.disk.load_base(self.spec, self.runner.stage, epoch)
        return BaseHeld(epoch, base_digest(self.spec, self._base))

    async def fetch(self, effect: FetchBase, urls: Mapping[str, str]) -> BaseHeld:
        """Take a base from the store, or make that of epoch 0. Raises StateLost where it is another one."""
        if effect.parts:
            base = await self._parts(fetch_base, f"the base of epoch {effect.epoch}", effect.parts, urls)
        else:
            base = await self.device.run(initial_base, self.spec, self.runner.stage)
        digest = base_digest(self.spec, base)
        if effect.digest is not None and digest != effect.digest:
            raise StateLost(f"this device's base of epoch {effect.epoch} has another digest than the run's")
        return await self._keep(effect.epoch, base, StageState(self._named(base)))

    async def apply(self, effect: ApplyMerge, urls: Mapping[str, str]) -> BaseHeld:
        """Make the next base from the one held. Raises StateLost where the merge cannot be had."""
        base = self._held
        if effect.parts:
            what = f"the merge of epoch {effect.epoch}"
            merged = await self._parts(fetch_merged, what, effect.parts, urls)
            base = await asyncio.to_thread(next_base, self.spec, effect.epoch, base, merged)

        def rebased() -> StageState:
            weights = self._named(base)
            if not effect.trained:
                return StageState(weights)
            self.runner.engine.rebase(weights)
            return self.runner.engine.state()

        return await self._keep(effect.epoch + 1, base, await self.device.run(rebased))

    async def pseudo_gradient(self) -> Vector:
        """Base minus the engine's weights as they are now. Asked for before the merge that replaces both."""
        base, engine = self._held, self.runner.engine

        def difference() -> Vector:
            found: Vector = base.weights - flatten(engine.state(copy=False).weights).numpy()
            return found

        return await self.device.run(difference)

    async def _keep(self, epoch: int, base: OuterState, start: StageState) -> BaseHeld:
        disk = self.runner.disk

        def keep() -> None:
            save_state(start, disk.start_state(epoch))
            disk.save_base(self.spec, epoch, base)

        await asyncio.to_thread(keep)
        self._base = base
        self.runner.log.forget_before(epoch)
        return BaseHeld(epoch, base_digest(self.spec, base))

    async def _parts(
        self, fetch: FetchParts[T], what: str, parts: Sequence[StoredObject], urls: Mapping[str, str]
    ) -> T:
        """Parts that this replica cannot go on without, however long the store is away.

        Raises:
            StateLost: they are gone, or not what was announced.
        """

        async def attempt(again: bool) -> T:
            return await fetch(self.spec, self.objects, self.runner.stage, parts, {} if again else urls)

        try:
            return await persist(f"fetching {what}", attempt)
        except (StoreError, PartError) as error:
            raise StateLost(f"{what} cannot be had: {type(error).__name__}: {error}") from error

    def _named(self, base: OuterState) -> dict[str, Tensor]:
        return unflattened(base.weights, run_shapes(self.spec, self.runner.stage))

    @property
    def _held(self) -> OuterState:
        assert self._base is not None, "a base is held before anything rests on it"
        return self._base
