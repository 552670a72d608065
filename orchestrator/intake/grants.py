"""Accesses that an event grants to its receiver, so that it need not request URLs for them."""

from __future__ import annotations

from collections.abc import Iterable

from iota.objects import FrameKey, MergedKey, merged_part_sizes
from iota.protocol.events import (
    Event,
    EvidenceReady,
    FrameReady,
    LoadBase,
    MergeAssign,
    MergeReady,
    Plan,
    Reroute,
    StoreFrame,
)
from iota.protocol.frames import Direction, FrameName, StoredObject
from iota.protocol.messages import Method
from iota.protocol.plans import PlannedMicrobatch
from iota.spec import RunSpec
from iota.wire.frame import frame_size
from orchestrator.coordinator import Member
from orchestrator.intake.rights import Access


def accesses(spec: RunSpec, member: Member, event: Event) -> list[Access]:
    """The objects that `member` reads and writes because of `event`, in order."""
    match event:
        case Plan():
            share = event.share
            return [
                access
                for planned in share.microbatches
                for access in _frames(spec, member, (share.epoch, share.step, planned.microbatch, 0), planned)
            ]
        case Reroute() if event.miner == member.hotkey:
            at = (event.epoch, event.step, event.microbatch, event.attempt)
            return _frames(spec, member, at, event, forward=event.send_forward)
        case StoreFrame():
            size = frame_size(spec, event.name, member.hotkey, member.hotkey)  # addresses have one length
            return [Access(Method.PUT, str(FrameKey(spec.id, event.name)), size)]
        case FrameReady():
            return [Access(Method.GET, str(FrameKey(spec.id, event.notice.name)))]
        case MergeAssign():
            merged = str(MergedKey(spec.id, event.epoch, event.stage, event.part, member.hotkey))
            sizes = merged_part_sizes(spec, event.stage, event.part, len(event.contributions))
            # Where the size follows from the values, the merger asks for a URL once it knows it.
            put = [Access(Method.PUT, merged, sizes[0])] if len(sizes) == 1 else []
            return _reads(c.stored for c in event.contributions) + put
        case MergeReady() | LoadBase():
            return _reads(event.parts)
        case EvidenceReady():
            return _reads([event.stored])
        case _:
            return []


def _frames(
    spec: RunSpec,
    member: Member,
    at: tuple[int, int, int, int],
    beside: PlannedMicrobatch | Reroute,
    *,
    forward: bool = True,
) -> list[Access]:
    """The PUTs of the frames that a member sends for one microbatch to the replicas beside it.

    `at` is (epoch, step, microbatch, attempt). Without `forward`, only the frame to the stage before.
    """
    epoch, step, microbatch, attempt = at
    backward = None if spec.is_heldout(microbatch) else beside.before
    receivers = {Direction.FORWARD: beside.after if forward else None, Direction.BACKWARD: backward}
    found = []
    for direction, receiver in receivers.items():
        if receiver is None:
            continue
        name = FrameName(
            epoch=epoch,
            step=step,
            microbatch=microbatch,
            attempt=attempt,
            stage=member.stage,
            direction=direction,
        )
        size = frame_size(spec, name, member.hotkey, receiver)
        found.append(Access(Method.PUT, str(FrameKey(spec.id, name)), size))
    return found


def _reads(objects: Iterable[StoredObject]) -> list[Access]:
    return [Access(Method.GET, stored.key) for stored in objects]
