"""Reads the bases that replicas say they have stored, before that is recorded."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from blake3 import blake3

from iota.console.watch import Watch
from iota.objects import part_sizes
from iota.outer.partition import PartError
from iota.protocol.frames import StoredObject
from iota.protocol.messages import BaseStored
from iota.protocol.problems import Problem
from iota.retry import Backoff
from iota.store import ObjectMissing, ObjectStore, ObjectTooLarge, StoreError
from orchestrator.coordinator import Coordinator, Exchanged
from orchestrator.http.base_hasher import BaseHasher, base_partition, stored_bytes
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder

_BACKOFF: Final = Backoff(first_s=0.5, max_s=10.0)
_log = logging.getLogger(__name__)


class BaseChecker:
    """Records that a base is stored once its bytes have the digest that the stage agreed on.

    One base is read at a time, and one part of it is in memory. A report that waits is lost when the server
    ends: the base then counts as not stored in time, and a replica is asked for it again.
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
        self._watch = Watch("the object store, for a base that was stored", scale=scale)
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
        failures = 0
        while self._wanted(hotkey, base):
            try:
                found = await self._digest(self._coordinator.members[hotkey].stage, base)
                if found != base.digest:
                    raise PartError(f"its values have the digest {found}")
                await self._record(hotkey, base)
            except (PartError, ObjectTooLarge) as error:
                self._refused.add((hotkey, base.epoch))
                _log.warning("%s stored no base of epoch %d: %s", hotkey, base.epoch, error)
                return
            except ObjectMissing as error:
                _log.warning("the base of epoch %d that %s stored is gone: %s", base.epoch, hotkey, error)
                return
            except (StoreError, OSError, TimeoutError, Problem) as error:
                failures += 1
                self._metrics.failure("store")
                pause_s = _BACKOFF.pause_s(failures)
                self._watch.failed(error, pause_s)
                await asyncio.sleep(pause_s)
            else:
                self._watch.passed()
                return

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
        with BaseHasher(spec) as hasher:
            for part, size in zip(base.parts, part_sizes(spec, stage), strict=True):
                data = await stored_bytes(self._store, part)
                await asyncio.to_thread(self._take, hasher, part, size, data)
            return await asyncio.to_thread(hasher.digest)

    def _take(self, hasher: BaseHasher, part: StoredObject, size: int, data: bytes) -> None:
        if (found := blake3(data).hexdigest()) != part.digest:
            raise PartError(f"a part of BLAKE3 {found} was announced with {part.digest}")
        hasher.take(base_partition(self._coordinator.spec, data, size))
