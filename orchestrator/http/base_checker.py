"""Reads the bases that replicas say they have stored, before that is recorded."""

from __future__ import annotations

import asyncio
import logging

from iota.objects import part_sizes
from iota.outer.base_values import BaseHasher, read_partition
from iota.outer.partition import PartError
from iota.protocol.messages import BaseStored
from iota.store import ObjectMissing, ObjectStore, ObjectTooLarge
from orchestrator.coordinator import Coordinator, Exchanged
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder
from orchestrator.http.store_reads import verified_part
from orchestrator.http.store_tries import StoreTries

_log = logging.getLogger(__name__)


class BaseChecker:
    """Records that a base is stored once its bytes have the digest that the stage agreed on.

    One base is read at a time, and one part of it is in memory. A report that waits is lost when the server
    ends: its sender is asked again when the next one begins (`bases.ask_again`).
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
        self._tries = StoreTries("the object store, for a base that was stored", metrics, scale)
        self._waiting: dict[tuple[str, int], BaseStored] = {}
        """By replica and epoch. Only a replica that was asked to store a base gets here."""
        self._refused: set[tuple[str, int]] = set()
        """Those that hold other bytes: an object is created once, so that they stay so."""
        self._due = asyncio.Event()

    def keep_back(self, said: Exchanged) -> Exchanged | None:
        """The entry without the bases that it announces, which are read first; None if nothing is left."""
        bases = [report for report in said.reports if isinstance(report, BaseStored)]
        for base in bases:
            at = (said.hotkey, base.epoch)
            if at not in self._refused and at not in self._waiting:
                self._waiting[at] = base
                self._due.set()
        if not bases:
            return said
        reports = tuple(report for report in said.reports if not isinstance(report, BaseStored))
        return (
            said.model_copy(update={"reports": reports}) if said.receipts or said.frames or reports else None
        )

    async def run(self) -> None:
        """Read the bases in the order of their reports, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._waiting:
                at = next(iter(self._waiting))
                await self._check(at[0], self._waiting[at])
                del self._waiting[at]

    async def _check(self, hotkey: str, base: BaseStored) -> None:
        """Read one base and record it; try again while it is wanted."""

        async def check() -> None:
            try:
                found = await self._digest(self._coordinator.members[hotkey].stage, base)
                if found != base.digest:
                    raise PartError(f"its values have the digest {found}")
                await self._record(hotkey, base)
            except (PartError, ObjectTooLarge) as error:
                self._refused.add((hotkey, base.epoch))
                _log.warning("%s stored no base of epoch %d: %s", hotkey, base.epoch, error)
            except ObjectMissing as error:
                _log.warning("the base of epoch %d that %s stored is gone: %s", base.epoch, hotkey, error)

        await self._tries.persist(check, lambda: self._wanted(hotkey, base))

    def _wanted(self, hotkey: str, base: BaseStored) -> bool:
        return self._coordinator.members[hotkey].live and self._coordinator.is_new(hotkey, base)

    async def _record(self, hotkey: str, base: BaseStored) -> None:
        async with self._recorder.lock_for(hotkey):
            if self._wanted(hotkey, base):
                await self._recorder.record(
                    Exchanged(at=self._recorder.stamp(), hotkey=hotkey, reports=(base,))
                )

    async def _digest(self, stage: int, base: BaseStored) -> str:
        """`base_digest` of the stored parts. Raises PartError where they are none of the announced."""
        spec = self._coordinator.spec

        hasher = BaseHasher(spec)

        def take(data: bytes, size: int) -> None:
            hasher.take(read_partition(spec, data, size))

        for part, size in zip(base.parts, part_sizes(spec, stage), strict=True):
            data = await verified_part(self._store, part)
            await asyncio.to_thread(take, data, size)
        return hasher.roots().digest
