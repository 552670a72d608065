"""What a replica owes the run beside its training: its pseudo-gradient, merges, bases and snapshots.

Each is tried until it is done, or until the run has gone on without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from iota.client.run_objects import RunObjects
from iota.objects import SnapshotKey
from iota.outer.base import base_digest
from iota.outer.partition import Vector
from iota.protocol.events import Admit, AuditRequest, AuditsClosed, BaseAssign, Event, MergeAssign, MergeReady
from iota.protocol.messages import Report, SnapshotStored
from iota.spec import RunSpec
from miner.disk import MinerDisk
from miner.merging import merge_part, store_base, store_delta
from miner.retry import FAILURES, FIRST_PAUSE_S, Patience

log = logging.getLogger(__name__)

Attempt = Callable[[bool], Awaitable[Report]]
"""One try, told whether there has been one before; its report says that the duty is done."""


@dataclass
class Duties:
    """The duties of one life of a replica. `tasks` owns every one of them."""

    spec: RunSpec
    stage: int
    hotkey: str
    disk: MinerDisk
    objects: RunObjects
    tasks: asyncio.TaskGroup
    say: Callable[[Report], None]
    first_pause_s: float = FIRST_PAUSE_S
    at_work: set[str] = field(default_factory=set)
    """A duty that is given again while it is at work is the same one."""
    merged: int = -1
    """The newest epoch whose merge is ready at this stage."""
    admitted: int = -1
    """The newest epoch that this replica trains in: every stage has merged those before it."""
    closed: set[int] = field(default_factory=set)
    """Epochs whose audits are closed."""

    def hear(self, event: Event, urls: Mapping[str, str]) -> None:
        match event:
            case MergeReady():
                self.merged = max(self.merged, event.epoch)
            case Admit():
                self.admitted = max(self.admitted, event.epoch)
            case AuditsClosed():
                self.closed.add(event.epoch)
            case MergeAssign():
                self._merge(event, urls)
            case BaseAssign():
                self._store_base(event.epoch)
            case AuditRequest():
                self._store_snapshot(event)
            case _:
                pass

    def store_delta(self, epoch: int, delta: Vector) -> None:
        """This replica's pseudo-gradient of `epoch`."""

        async def attempt(again: bool) -> Report:
            return await store_delta(self.spec, self.objects, self.hotkey, self.stage, epoch, delta)

        self._start(f"storing the pseudo-gradient of epoch {epoch}", attempt, lambda: self._merge_over(epoch))

    def _merge(self, event: MergeAssign, urls: Mapping[str, str]) -> None:
        async def attempt(again: bool) -> Report:
            return await merge_part(self.spec, self.objects, self.hotkey, event, {} if again else urls)

        def pointless() -> bool:
            # Another stage's merge is not announced here; the next epoch starts when all are done.
            return self.admitted > event.epoch or (
                event.stage == self.stage and self._merge_over(event.epoch)
            )

        what = f"merging part {event.part} of stage {event.stage} of epoch {event.epoch}"
        self._start(what, attempt, pointless)

    def _merge_over(self, epoch: int) -> bool:
        return self.merged >= epoch or self.admitted > epoch

    def _store_base(self, epoch: int) -> None:
        async def attempt(again: bool) -> Report:
            base = await asyncio.to_thread(self.disk.load_base, self.spec, self.stage, epoch)
            digest = base_digest(self.spec, base)
            return await store_base(self.spec, self.objects, self.stage, epoch, base, digest)

        # Later bases do not replace it: the audits of its epoch start from it.
        self._start(f"storing the base of epoch {epoch}", attempt, lambda: epoch in self.closed)

    def _store_snapshot(self, event: AuditRequest) -> None:
        async def attempt(again: bool) -> Report:
            path = self.disk.snapshot(event.epoch, event.version)
            data = await asyncio.to_thread(path.read_bytes)
            key = SnapshotKey(self.spec.id, event.epoch, self.hotkey, event.version)
            stored = await self.objects.put(str(key), data)
            return SnapshotStored(epoch=event.epoch, version=event.version, stored=stored)

        what = f"storing the snapshot of version {event.version} of epoch {event.epoch}"
        self._start(what, attempt, lambda: event.epoch in self.closed)

    def _start(self, what: str, attempt: Attempt, pointless: Callable[[], bool]) -> None:
        if what not in self.at_work:
            self.at_work.add(what)
            self.tasks.create_task(self._do(what, attempt, pointless), name=what)

    async def _do(self, what: str, attempt: Attempt, pointless: Callable[[], bool]) -> None:
        patience, again = Patience(what, self.first_pause_s), False
        try:
            while not pointless():
                try:
                    self.say(await attempt(again))
                    return
                except FAILURES as error:
                    if not await patience.after(error):
                        log.error("%s failed: %s: %s", what, type(error).__name__, error)
                        return
                again = True
            log.info("%s is no longer needed", what)
        except OSError as error:
            # What was to be stored is not on disk (any more): the coordinator asks somebody else.
            log.error("%s failed: %s: %s", what, type(error).__name__, error)
        finally:
            self.at_work.discard(what)
