"""Cheats with evidence: frames and snapshots that are not stored, and miners that leave or join anew."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any, Final

from blake3 import blake3

import miner.node
from iota.codec.shapes import payload_size
from iota.objects import EvidenceKey
from iota.protocol.frames import Direction, FrameNotice, StoredObject
from iota.protocol.messages import EvidenceStored
from iota.protocol.receipts import OpKind
from iota.wire.store_transport import StoreTransport
from iota.wire.transport import OutgoingFrame
from miner.core.effects import StoreEvidence
from miner.disk import MinerDisk
from miner.duty_worker import DutyWorker
from miner.op_records import OpRecords, StateLost
from miner.ops import OpRunner
from tests.support.cheats.compute import after_the_base, of_one_size, sends
from tests.support.cheats.first_lie import lied
from tests.support.miner_program import run_miner

log = logging.getLogger(__name__)

MANY: Final = 1_000_000
"""Joins of one process."""


def lazy() -> None:
    """No work after the base, and evidence that is announced and never stored."""

    async def store_evidence(self: DutyWorker, duty: StoreEvidence) -> EvidenceStored:
        key = EvidenceKey(self.spec.id, duty.epoch, self.hotkey, duty.item, duty.version)
        stored = StoredObject(key=str(key), digest="1" * 64, size=1000)
        return EvidenceStored(epoch=duty.epoch, item=duty.item, version=duty.version, stored=stored)

    DutyWorker._store_evidence = store_evidence  # type: ignore[method-assign]
    sends(after_the_base)


def deletes_snapshots() -> None:
    """No work after the base, and no snapshot on its disk when one is asked for."""
    honest = DutyWorker._store_evidence

    async def store_evidence(self: DutyWorker, duty: StoreEvidence) -> EvidenceStored:
        shutil.rmtree(self.disk.snapshot(duty.epoch, duty.version).parent, ignore_errors=True)
        return await honest(self, duty)

    DutyWorker._store_evidence = store_evidence  # type: ignore[method-assign]
    sends(after_the_base)


def leaves() -> None:
    """No work after the base, and leaves the run when evidence of it is asked for."""

    async def store_evidence(self: DutyWorker, duty: StoreEvidence) -> EvidenceStored:
        log.warning("evidence of epoch %d is asked for: it leaves", duty.epoch)
        os._exit(0)

    DutyWorker._store_evidence = store_evidence  # type: ignore[method-assign]
    sends(after_the_base)


def rejoins() -> None:
    """Ends before each STEP, and joins anew with an empty disk: it never computes an update."""

    def end(self: OpRunner, op: Any, inputs: Any) -> Any:
        lied(op.epoch, op.step)
        _empty(self.disk)
        raise StateLost("it joins anew in place of a STEP")

    OpRunner._launch_step = end  # type: ignore[method-assign]
    miner.node.MAX_JOINS = MANY  # type: ignore[misc]
    run_miner()


def lies_and_joins_anew() -> None:
    """Sends constants after the base until the fourth STEP, loses those states, and then works."""
    lost = False
    honest = OpRunner._launch_step

    def step(self: OpRunner, op: Any, inputs: Any) -> Any:
        nonlocal lost
        if op.step == 3 and not lost:
            lost = True
            _empty(self.disk)
            raise StateLost("nobody can show the states of this life")
        return honest(self, op, inputs)

    OpRunner._launch_step = step  # type: ignore[method-assign]
    sends(lambda work: None if lost else after_the_base(work))


def _empty(disk: MinerDisk) -> None:
    for kind in ("base", "snapshots", "frames"):
        shutil.rmtree(disk.root / kind, ignore_errors=True)


def forwards_alone() -> None:
    """Sends constants forward for one microbatch a step after the base, and leaves its backward to others."""
    honest = StoreTransport.fetch

    async def fetch(self: StoreTransport, notice: FrameNotice, sender: str) -> None:
        name = notice.name
        if name.direction is Direction.FORWARD or name.step < 2 or name.microbatch > 1:
            await honest(self, notice, sender)

    StoreTransport.fetch = fetch  # type: ignore[method-assign]
    sends(lambda work: of_one_size(work) if work.mb.step >= 2 and work.mb.index <= 1 else None)


def unstored_frames() -> None:
    """Announces its frames and stores none: a partner downstream makes its own input up."""

    async def send(self: StoreTransport, frame: OutgoingFrame, to: str) -> FrameNotice:
        lied(frame.notice.name.epoch, frame.notice.name.step)
        return frame.notice

    StoreTransport.send = send  # type: ignore[method-assign]
    run_miner()


def other_frames() -> None:
    """Computes and receipts its true results, and sends frames of zeros."""
    honest = OpRecords.frame

    def frame(self: OpRecords, op: Any, payload: bytes, digest: str, receiver: str) -> OutgoingFrame:
        if op.kind is OpKind.FORWARD:
            lied(op.epoch, op.step)
            payload = bytes(payload_size(self.spec))
            digest = blake3(payload).hexdigest()
        return honest(self, op, payload, digest, receiver)

    OpRecords.frame = frame  # type: ignore[method-assign]
    run_miner()
