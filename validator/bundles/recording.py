"""Reads evidence from a run's servers and writes what it read into a bundle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from iota.client.contributions import read_contribution
from iota.protocol.frames import EvidenceItem, StoredObject
from iota.protocol.receipts import ReceiptBatch
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec
from validator.audits.evidence import Evidence
from validator.audits.sources import Objects, Records, TokenIds
from validator.bundles import form
from validator.bundles.archive import BundleWriter
from validator.core import jobs
from validator.core.results import EvidenceMissing, MinerFault, Undelivered

BATCHES: Final = TypeAdapter(list[ReceiptBatch])


class Recording:
    """The sources of `Evidence`, whose answers become members. Raises BundleTooLarge beside their errors."""

    def __init__(self, writer: BundleWriter, client: Records, objects: Objects, samples: TokenIds) -> None:
        self._writer, self._client, self._objects, self._samples = writer, client, objects, samples

    async def record(self, epoch: int) -> bytes:
        """As `Records.record`."""
        data = await self._client.record(epoch)
        await self._add(form.RECORD, data)
        return data

    async def receipts(self, epoch: int, hotkey: str) -> list[ReceiptBatch]:
        """As `Records.receipts`."""
        batches = await self._client.receipts(epoch, hotkey)
        await self._add(form.receipts_name(epoch, hotkey), BATCHES.dump_json(batches))
        return batches

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        """As `Records.base`."""
        record = await self._client.base(epoch, stage)
        await self._add(form.base_name(epoch, stage), record.model_dump_json().encode())
        return record

    async def get(self, key: str, max_bytes: int) -> bytes:
        """As `Objects.get`."""
        data = await self._objects.get(key, max_bytes)
        await self._add(form.object_name(key), data)
        return data

    async def get_verified(self, stored: StoredObject) -> bytes:
        """As `Objects.get_verified`; what has no room is not fetched."""
        self._writer.check_room(stored.size)
        data = await self._objects.get_verified(stored)
        await self._add(form.object_name(stored.key), data)
        return data

    async def microbatch(self, epoch: int, step: int, index: int) -> npt.NDArray[np.integer]:
        """As `TokenIds.microbatch`."""
        tokens = await self._samples.microbatch(epoch, step, index)
        await self._add(form.tokens_name(epoch, step, index), tokens.astype("<i4").tobytes())
        return tokens

    def blank_tokens(self) -> npt.NDArray[np.integer]:
        """As `TokenIds.blank_tokens`."""
        return self._samples.blank_tokens()

    async def _add(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._writer.add, name, data)


async def read_again(evidence: Evidence, done: Iterable[jobs.Job]) -> None:
    """Read what the jobs of an audit read, without a replay."""
    for job in done:
        with suppress(EvidenceMissing, MinerFault, Undelivered):  # as the audit may have ended
            match job:
                case jobs.FetchBase():
                    await evidence.start(job.base)
                case jobs.LoadBase() | jobs.LoadSnapshot() | jobs.CompareState() | jobs.HashDelta():
                    if isinstance(job, jobs.LoadBase | jobs.HashDelta):
                        await evidence.start(job.base)
                    if (snapshot := _snapshot_of(job)) is not None:
                        await evidence.snapshot(snapshot)
                    if isinstance(job, jobs.HashDelta) and job.feedback is not None:
                        await evidence.feedback(job.feedback)
                case jobs.FetchFrame():
                    await evidence.frame(job.header, job.kept)
                case jobs.FetchAnnounced():
                    await evidence.announced(job.notice, job.kept)
                case jobs.FetchTokens():
                    await evidence.tokens(job.receipt)
                case jobs.FetchSent():
                    await evidence.sent_payload(job.miner, job.receipt, job.kept)
                case jobs.ReplayMerge() | jobs.RemakeBase():
                    await _read_merge(evidence, job)
                case _:  # a replay, or a question that is no evidence
                    pass


async def _read_merge(evidence: Evidence, job: jobs.ReplayMerge | jobs.RemakeBase) -> None:
    if isinstance(job, jobs.ReplayMerge):
        for each in job.assign.contributions:
            if each.hotkey not in job.absent:
                await read_contribution(evidence.objects.get, each.stored)
        return
    for part in parts_of(evidence.spec, job):
        await evidence.objects.get_verified(part)


def parts_of(spec: RunSpec, job: jobs.Job) -> tuple[StoredObject, ...]:
    """The parts that a job reads of a base, of the merge that it is made again by, and of an own start."""
    if not isinstance(job, jobs.FetchBase | jobs.LoadBase | jobs.HashDelta | jobs.RemakeBase):
        return ()
    record = job.base.record
    from_seed = job.base.epoch == 0 and spec.init is None
    parts = () if record is None or from_seed else record.parts
    own = () if job.base.own is None else job.base.own.parts
    return parts + own + (job.merged if isinstance(job, jobs.RemakeBase) else ())


def delivered_of(done: Iterable[jobs.Job]) -> tuple[form.Delivered, ...]:
    """The evidence that the jobs of an audit read of what its miner delivered, in order."""
    found: dict[tuple[EvidenceItem, int], StoredObject] = {}
    for job in done:
        if (snapshot := _snapshot_of(job)) is not None:
            found[EvidenceItem.SNAPSHOT, snapshot.version] = snapshot.stored
        if isinstance(job, jobs.HashDelta) and job.feedback is not None:
            joined = job.feedback.commit.version
            found[EvidenceItem.FEEDBACK, joined] = job.feedback.stored
        if isinstance(job, jobs.FetchFrame | jobs.FetchSent | jobs.FetchAnnounced) and job.kept is not None:
            found[EvidenceItem.FRAMES, job.kept.step] = job.kept.stored
    return tuple(form.Delivered(item=at[0], version=at[1], stored=found[at]) for at in sorted(found))


def _snapshot_of(job: jobs.Job) -> jobs.Snapshot | None:
    """The snapshot that a job reads, if it reads one."""
    match job:
        case jobs.LoadBase():
            return None if job.carried is None else job.carried.snapshot
        case jobs.LoadSnapshot() | jobs.CompareState() | jobs.HashDelta():
            return job.snapshot
        case _:
            return None
