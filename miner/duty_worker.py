"""Carries out duties: stores pseudo-gradients, merged parts, bases and evidence."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from iota.client.contributions import read_contributions
from iota.client.run_objects import RunObjects
from iota.compute.errors import StateError
from iota.compute.state import check_intact
from iota.objects import BaseKey, DeltaKey, EvidenceKey, MergedKey
from iota.outer.merge import merge_part
from iota.outer.partition import PartError
from iota.protocol.events import MergeAssign
from iota.protocol.frames import EvidenceItem, StoredObject
from iota.protocol.merges import merge_output
from iota.protocol.messages import (
    BaseStored,
    Delta,
    EvidenceStored,
    Merged,
    Report,
)
from iota.protocol.problems import Problem, ProblemType
from iota.spec import RunSpec
from iota.wire.frame import FrameError, check_frame
from miner.core.effects import Duty, MergePart, StoreBase, StoreDelta, StoreEvidence
from miner.core.facts import DutyEnded
from miner.delta_files import DeltaFiles
from miner.disk import MinerDisk
from miner.merge_receipts import MergeReceipts
from miner.retry import FAILURES, FIRST_PAUSE_S, NotWanted, persist
from miner.turns import Turns

log = logging.getLogger(__name__)

_READ_AT_ONCE: Final = 4
"""Partitions of a pseudo-gradient or a base that are in memory on their way to the store."""

Attempt = Callable[[bool], Awaitable[Report]]
"""One try of a duty; the argument is True from the second try on."""


@dataclass
class DutyWorker:
    """Retries each duty until it succeeds, fails for good, or `wants` says that the run needs it no more.

    `turn` gives what evidence is stored in the order of: (rank, deadline in Unix seconds).
    """

    spec: RunSpec
    stage: int
    hotkey: str
    disk: MinerDisk
    objects: RunObjects
    receipts: MergeReceipts
    wants: Callable[[Duty], bool]
    turn: Callable[[StoreEvidence], tuple[int, float]]
    first_pause_s: float = FIRST_PAUSE_S

    def __post_init__(self) -> None:
        self._evidence = Turns(self.turn)
        """Evidence is stored one object after another, by its ranks: each takes memory and the line."""

    async def do(self, duty: Duty, urls: Mapping[str, str]) -> DutyEnded:
        """Carry out a duty; a failure is logged and gives a fact without a report.

        `urls` are presigned URLs by key that came with the duty's event. Retries ask for new ones, since
        these may have expired.
        """
        what, attempt = await self._job(duty, urls)
        try:
            wanted = partial(self.wants, duty)
            report = await persist(what, attempt, wanted=wanted, first_pause_s=self.first_pause_s)
            return DutyEnded(duty, report)
        except NotWanted:
            log.info("%s is no longer needed", what)
        except Problem as problem:
            if problem.type is ProblemType.LATE:
                log.warning("%s is not needed now: %s", what, problem.detail)
            else:
                log.error("%s failed: %s", what, problem)
        except (*FAILURES, StateError, PartError, FrameError, OSError) as error:
            # Refused, or the file is damaged or no longer on disk. The coordinator then asks another replica.
            if self.wants(duty):
                log.error("%s failed: %s: %s", what, type(error).__name__, error)
            else:
                log.info("%s is no longer needed", what)
        return DutyEnded(duty, None)

    async def _job(self, duty: Duty, urls: Mapping[str, str]) -> tuple[str, Attempt]:
        """The duty in words for the log, and one try of it."""
        match duty:
            case StoreDelta(epoch):
                return f"storing the pseudo-gradient of epoch {epoch}", lambda _: self._store_delta(epoch)
            case MergePart(assign):
                return (
                    f"merging part {assign.part} of stage {assign.stage} of epoch {assign.epoch}",
                    lambda again: self._merge(assign, {} if again else urls),
                )
            case StoreBase(epoch):
                return f"storing the base of epoch {epoch}", lambda _: self._store_base(epoch)
            case StoreEvidence(epoch, item, version):
                what = f"{item} {version} of epoch {epoch}"
                return f"storing the evidence {what}", lambda _: self._store_evidence(duty)

    async def _store_delta(self, epoch: int) -> Delta:
        """Store a pseudo-gradient, one object per partition."""
        files = self.disk.delta_parts(epoch)
        if not files:
            raise FileNotFoundError(f"{self.disk.delta(epoch)} has no pseudo-gradient")
        keys = [DeltaKey(self.spec.id, epoch, self.stage, self.hotkey, n) for n in range(len(files))]
        return Delta(epoch=epoch, parts=await self._put_files(keys, files))

    async def _merge(self, assign: MergeAssign, urls: Mapping[str, str]) -> Merged:
        """Merge one partition of one stage, store and sign it. A second miner must get the same bits."""
        started = time.time()
        given = await read_contributions(self.objects, assign, urls)
        made = await asyncio.to_thread(merge_part, self.spec, assign, lambda c: given[c.hotkey])
        for hotkey, why in made.left_out.items():
            log.warning("the merge of stage %d leaves out %s: %s", assign.stage, hotkey, why)
        key = str(MergedKey(self.spec.id, assign.epoch, assign.stage, assign.part, self.hotkey))
        stored = await self.objects.put(key, made.data, urls.get(key))
        await self.receipts.write(assign, merge_output(stored.digest, made.left_out), started)
        return Merged(
            epoch=assign.epoch,
            stage=assign.stage,
            part=assign.part,
            stored=stored,
            left_out=made.left_out,
        )

    async def _store_base(self, epoch: int) -> BaseStored:
        """Store a base that is not damaged, one object per partition."""
        whole = self.disk.base_partitions(self.spec, self.stage, epoch)
        await asyncio.to_thread(lambda: sum(1 for _ in whole))
        files = self.disk.base_files(self.spec, self.stage, epoch)
        keys = [BaseKey(self.spec.id, epoch, self.stage, n, self.hotkey) for n in range(len(files))]
        digest = self.disk.base_roots(epoch).digest
        return BaseStored(epoch=epoch, digest=digest, parts=await self._put_files(keys, files))

    async def _put_files(
        self, keys: Sequence[DeltaKey | BaseKey], files: Sequence[Path]
    ) -> tuple[StoredObject, ...]:
        """Store files, with `_READ_AT_ONCE` of them in memory."""
        room = asyncio.Semaphore(_READ_AT_ONCE)

        async def put(key: DeltaKey | BaseKey, file: Path) -> StoredObject:
            async with room:
                return await self.objects.put(str(key), await asyncio.to_thread(file.read_bytes))

        return tuple(await asyncio.gather(*(put(k, f) for k, f in zip(keys, files, strict=True))))

    async def _store_evidence(self, duty: StoreEvidence) -> EvidenceStored:
        epoch, item, version = duty.epoch, duty.item, duty.version
        read = {
            EvidenceItem.SNAPSHOT: self._snapshot,
            EvidenceItem.FRAMES: self._frames,
            EvidenceItem.FEEDBACK: self._feedback,
        }[item]
        async with self._evidence.turn(duty):
            data = await asyncio.to_thread(read, epoch, version)
            key = EvidenceKey(self.spec.id, epoch, self.hotkey, item, version)
            stored = await self.objects.put(str(key), data)
        return EvidenceStored(epoch=epoch, item=item, version=version, stored=stored)

    def _feedback(self, epoch: int, version: int) -> bytes:
        """What the epoch began with, at whichever version that was."""
        found = DeltaFiles(self.spec, self.disk).feedback(epoch)
        if not found:
            raise FileNotFoundError(f"{self.disk.feedback(epoch)} has no feedback")
        return found

    def _snapshot(self, epoch: int, version: int) -> bytes:
        path = self.disk.snapshot(epoch, version)
        found = path.read_bytes()
        try:
            check_intact(found, self.spec, self.stage)
        except StateError:
            path.unlink()  # an audit would take it for this miner's lie
            raise
        return found

    def _frames(self, epoch: int, step: int) -> bytes:
        """The kept frames of a step, without those that this disk has damaged: the others may do."""
        found = []
        for file in self.disk.kept_frames(epoch, step):
            try:
                data = file.read_bytes()
                check_frame(data, self.spec)
            except (OSError, FrameError) as error:
                log.error("%s cannot be shown to an audit: %s", file, error)
            else:
                found.append(data)
        if not found:
            raise FrameError(f"none of the frames of step {step} of epoch {epoch} is on this disk")
        return b"".join(found)
