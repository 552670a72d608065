"""Accesses that an event grants to its receiver, so that it need not request URLs for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from iota.objects import FrameKey, MergedKey
from iota.protocol.events import (
    Event,
    FrameReady,
    LoadBase,
    MergeAssign,
    MergeReady,
    Plan,
    Reroute,
    SnapshotReady,
)
from iota.protocol.messages import Direction, FrameName, Method, StoredObject
from iota.spec import RunSpec
from iota.wire.frame import frame_size
from orchestrator.coordinator import Member
from orchestrator.intake.rights import Access


def accesses(spec: RunSpec, member: Member, event: Event) -> list[Access]:
    """The objects that `member` reads and writes because of `event`, in order."""
    match event:
        case Plan():
            return [
                access
                for microbatch in range(len(event.routes))
                if event.miner(microbatch, member.stage) == member.hotkey
                for access in _frames(
                    spec, event, microbatch, 0, member.stage, event.route(microbatch), Direction
                )
            ]
        case Reroute() if event.miner == member.hotkey:
            sent = Direction if event.send_forward else (Direction.BACKWARD,)
            return _frames(spec, event, event.microbatch, event.attempt, event.stage, event.route, sent)
        case FrameReady():
            return [Access(Method.GET, str(FrameKey(spec.id, event.notice.name)))]
        case MergeAssign():
            merged = str(MergedKey(spec.id, event.epoch, event.stage, event.part, member.hotkey))
            size = event.contributions[0].stored.size if event.contributions else 0
            put = [Access(Method.PUT, merged, size)] if size else []
            return _reads(c.stored for c in event.contributions) + put
        case MergeReady() | LoadBase():
            return _reads(event.parts)
        case SnapshotReady():
            return _reads([event.stored])
        case _:
            return []


def _frames(
    spec: RunSpec,
    event: Plan | Reroute,
    microbatch: int,
    attempt: int,
    stage: int,
    route: Sequence[str],
    directions: Iterable[Direction],
) -> list[Access]:
    """The PUTs of the frames that `stage` sends for one microbatch along `route`, within the model."""
    found = []
    for direction in directions:
        towards = direction.destination(stage, spec.layout.stages)
        if towards is None:
            continue
        name = FrameName(
            epoch=event.epoch,
            step=event.step,
            microbatch=microbatch,
            attempt=attempt,
            stage=stage,
            direction=direction,
        )
        size = frame_size(spec, name, route[stage], route[towards])
        found.append(Access(Method.PUT, str(FrameKey(spec.id, name)), size))
    return found


def _reads(objects: Iterable[StoredObject]) -> list[Access]:
    return [Access(Method.GET, stored.key) for stored in objects]
