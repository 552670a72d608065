"""The accesses that each event grants to its reader, so that no second request is needed for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

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
    """The objects that `member` will read and write because of `event`, in order."""
    match event:
        case Plan():
            return _planned(spec, member, event)
        case Reroute() if event.miner == member.hotkey:
            return _rerouted(spec, member.hotkey, event)
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


def _planned(spec: RunSpec, member: Member, plan: Plan) -> list[Access]:
    found: list[Access] = []
    for microbatch in range(len(plan.routes)):
        if plan.miner(microbatch, member.stage) != member.hotkey:
            continue
        for direction in Direction:
            name = FrameName(
                epoch=plan.epoch,
                step=plan.step,
                microbatch=microbatch,
                attempt=0,
                stage=member.stage,
                direction=direction,
            )
            found += _sent(spec, member.hotkey, name, partial(plan.miner, microbatch))
    return found


def _rerouted(spec: RunSpec, sender: str, event: Reroute) -> list[Access]:
    found: list[Access] = []
    for direction in Direction:
        if direction is Direction.FORWARD and not event.send_forward:
            continue
        name = FrameName(
            epoch=event.epoch,
            step=event.step,
            microbatch=event.microbatch,
            attempt=event.attempt,
            stage=event.stage,
            direction=direction,
        )
        found += _sent(spec, sender, name, lambda s: event.route[s])
    return found


def _sent(spec: RunSpec, sender: str, name: FrameName, miner_at: Callable[[int], str]) -> list[Access]:
    """The PUT of one frame; none where the model ends."""
    towards = name.direction.destination(name.stage, spec.layout.stages)
    if towards is None:
        return []
    size = frame_size(spec, name, sender, miner_at(towards))
    return [Access(Method.PUT, str(FrameKey(spec.id, name)), size)]


def _reads(objects: Iterable[StoredObject]) -> list[Access]:
    return [Access(Method.GET, stored.key) for stored in objects]
