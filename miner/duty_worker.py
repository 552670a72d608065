"""Does the duties that the core gives: stores pseudo-gradients, merged parts, bases and snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from iota.client.run_objects import RunObjects
from iota.objects import SnapshotKey
from iota.outer.base import base_digest
from iota.protocol.messages import Report, SnapshotStored
from iota.spec import RunSpec
from miner.bases import BaseKeeper
from miner.core.effects import Duty, MergePart, StoreBase, StoreDelta, StoreSnapshot
from miner.core.facts import DutyEnded
from miner.disk import MinerDisk
from miner.merging import merge_part, store_base, store_delta
from miner.retry import FAILURES, FIRST_PAUSE_S, NotWanted, persist

log = logging.getLogger(__name__)

Attempt = Callable[[bool], Awaitable[Report]]
"""One try, told whether there has been one before."""


@dataclass
class DutyWorker:
    """Tries each duty until it is done, or until it is wanted no longer."""

    spec: RunSpec
    stage: int
    hotkey: str
    disk: MinerDisk
    objects: RunObjects
    bases: BaseKeeper
    wants: Callable[[Duty], bool]
    first_pause_s: float = FIRST_PAUSE_S

    async def do(self, duty: Duty, urls: Mapping[str, str]) -> DutyEnded:
        """`urls` came with the event that gave the duty; they may have expired by a second try."""
        what, attempt = await self._job(duty, urls)
        try:
            wanted = partial(self.wants, duty)
            report = await persist(what, attempt, wanted=wanted, first_pause_s=self.first_pause_s)
            return DutyEnded(duty, report)
        except NotWanted:
            log.info("%s is no longer needed", what)
        except (*FAILURES, OSError) as error:
            # Refused, or what was to be stored is not on disk (any more): the coordinator asks somebody else.
            log.error("%s failed: %s: %s", what, type(error).__name__, error)
        return DutyEnded(duty, None)

    async def _job(self, duty: Duty, urls: Mapping[str, str]) -> tuple[str, Attempt]:
        """The duty in words for the log, and one try of it."""
        match duty:
            case StoreDelta():
                delta = await self.bases.pseudo_gradient()
                return (
                    f"storing the pseudo-gradient of epoch {duty.epoch}",
                    lambda _: store_delta(
                        self.spec, self.objects, self.hotkey, self.stage, duty.epoch, delta
                    ),
                )
            case MergePart(assign):
                return (
                    f"merging part {assign.part} of stage {assign.stage} of epoch {assign.epoch}",
                    lambda again: merge_part(
                        self.spec, self.objects, self.hotkey, assign, {} if again else urls
                    ),
                )
            case StoreBase():
                return f"storing the base of epoch {duty.epoch}", lambda _: self._store_base(duty)
            case StoreSnapshot():
                return (
                    f"storing the snapshot of version {duty.version} of epoch {duty.epoch}",
                    lambda _: self._store_snapshot(duty),
                )

    async def _store_base(self, duty: StoreBase) -> Report:
        base = await asyncio.to_thread(self.disk.load_base, self.spec, self.stage, duty.epoch)
        digest = base_digest(self.spec, base)
        return await store_base(self.spec, self.objects, self.stage, duty.epoch, base, digest)

    async def _store_snapshot(self, duty: StoreSnapshot) -> Report:
        data = await asyncio.to_thread(self.disk.snapshot(duty.epoch, duty.version).read_bytes)
        key = SnapshotKey(self.spec.id, duty.epoch, self.hotkey, duty.version)
        stored = await self.objects.put(str(key), data)
        return SnapshotStored(epoch=duty.epoch, version=duty.version, stored=stored)
