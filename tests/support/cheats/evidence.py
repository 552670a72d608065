"""Cheats with evidence: frames and snapshots that are not there, and miners that leave or join anew."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from typing import Any, Final

from blake3 import blake3

import miner.node
from iota.codec.shapes import payload_size
from iota.identity.keys import Hotkey, load_hotkey
from iota.identity.signatures import signing_bytes
from iota.objects import EvidenceKey
from iota.protocol.events import Delivered, Plan
from iota.protocol.frames import (
    KEPT_DOMAIN,
    Direction,
    FrameKept,
    FrameName,
    FrameNotice,
    StoredObject,
    kept_statement,
)
from iota.protocol.messages import EvidenceStored
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from iota.swarm.preparation import WALLET
from iota.wire.frame import encode_frame, make_header
from iota.wire.peer_transport import PeerTransport
from iota.wire.transport import IncomingFrame, OutgoingFrame
from miner.core.effects import SendFrame, StoreEvidence
from miner.core.facts import FrameNotStored, FrameStored
from miner.disk import MinerDisk
from miner.duty_worker import DutyWorker
from miner.frames import FrameMover
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
    """Sends constants forward for one microbatch a step after the base, and leaves its backward to others.

    It acknowledges those gradients, and keeps none.
    """
    honest = FrameMover.keep

    async def keep(self: FrameMover, arrived: IncomingFrame) -> Any:
        name = arrived.notice.name
        if name.direction is Direction.FORWARD or name.step < 2 or name.microbatch > 1:
            return await honest(self, arrived)
        arrived.settle(None)
        return None

    FrameMover.keep = keep  # type: ignore[method-assign]
    sends(lambda work: of_one_size(work) if work.mb.step >= 2 and work.mb.index <= 1 else None)


def unstored_frames() -> None:
    """Announces its frames, and neither stores nor pushes one: a partner downstream makes its own input up."""

    async def send(self: FrameMover, effect: SendFrame) -> FrameStored:
        name = effect.frame.notice.name
        lied(name.epoch, name.step)
        return FrameStored(effect.frame.notice)

    FrameMover.send = send  # type: ignore[method-assign]
    run_miner()


def unsent_frames() -> None:
    """Sends none of its frames, and says that its partner has kept them, with the partner's own signature.

    Those for others it sends.
    """
    honest, partner = FrameMover.send, _key_of("miner-01")

    async def send(self: FrameMover, effect: SendFrame) -> FrameStored | FrameNotStored:
        if effect.to != partner.ss58:
            return await honest(self, effect)
        notice = effect.frame.notice
        lied(notice.name.epoch, notice.name.step)
        statement = kept_statement(self.kept.spec.id, notice.name, notice.digest)
        signature = partner.sign(signing_bytes(KEPT_DOMAIN, statement))
        kept = FrameKept(receiver=partner.ss58, signature=signature.hex())
        return FrameStored(notice.model_copy(update={"kept": kept}))

    FrameMover.send = send  # type: ignore[method-assign]
    run_miner()


def makes_inputs_up() -> None:
    """Sends constants, and makes the frames of a partner that sends it none: zeros, with its signature."""
    honest, partner = PeerTransport.on_event, _key_of("miner-00")
    begun = set()

    def on_event(self: PeerTransport, delivered: Delivered) -> None:
        honest(self, delivered)
        match delivered.event:
            case Plan(share=share):
                for planned in share.microbatches:
                    if planned.before == partner.ss58:
                        name = FrameName(
                            epoch=share.epoch,
                            step=share.step,
                            microbatch=planned.microbatch,
                            attempt=0,
                            stage=share.stage - 1,
                            direction=Direction.FORWARD,
                        )
                        begun.add(asyncio.create_task(self._arrivals.pass_on(made_up(self.spec, name))))

    def made_up(spec: RunSpec, name: FrameName) -> IncomingFrame:
        payload = bytes(payload_size(spec))
        header = make_header(spec, name, blake3(payload).hexdigest(), partner.ss58, _key_of("miner-01").ss58)
        data = encode_frame(header, payload, partner.sign)
        notice = FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data))
        return IncomingFrame(notice, partner.ss58, data, pushed=True)

    PeerTransport.on_event = on_event  # type: ignore[method-assign]
    sends(of_one_size)


def _key_of(miner: str) -> Hotkey:
    """The key of another miner of this owner."""
    return load_hotkey(WALLET, miner, sys.argv[sys.argv.index("--wallet.path") + 1])


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
