"""Which URLs an event needs at the node that reads it. Pure but for the presigning itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from iota.objects import FrameKey, MergedKey
from iota.protocol.events import (
    Delivered,
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
from iota.store import ObjectStore
from iota.wire.frame import frame_size
from orchestrator.coordinator import Coordinator, Member
from orchestrator.intake.rights import Access

_FEW: Final = 16


def accesses(coordinator: Coordinator, member: Member, event: Event) -> list[Access]:
    """What `member` will read and write because of `event`; an access for each key, in order."""
    run = coordinator.spec.id
    match event:
        case Plan():
            return _planned(coordinator, member, event)
        case Reroute() if event.miner == member.hotkey:
            return _rerouted(coordinator, member, event)
        case FrameReady():
            return [Access(Method.GET, str(FrameKey(run, event.notice.name)))]
        case MergeAssign():
            merged = str(MergedKey(run, event.epoch, event.stage, event.part, member.hotkey))
            size = event.contributions[0].stored.size if event.contributions else 0
            put = [Access(Method.PUT, merged, size)] if size else []
            return _reads(c.stored for c in event.contributions) + put
        case MergeReady() | LoadBase():
            return _reads(event.parts)
        case SnapshotReady():
            return _reads([event.stored])
        case _:
            return []


async def deliver(
    coordinator: Coordinator,
    store: ObjectStore,
    member: Member,
    events: Sequence[tuple[int, Event]],
    expires_s: float,
) -> tuple[Delivered, ...]:
    """The events as they go out. Many signatures are made in a thread, to keep the loop free."""
    wanted = [accesses(coordinator, member, event) for _, event in events]
    if sum(map(len, wanted)) <= _FEW:
        urls = [_presign(store, each, expires_s) for each in wanted]
    else:
        urls = await asyncio.to_thread(lambda: [_presign(store, each, expires_s) for each in wanted])
    return tuple(
        Delivered(seq=seq, event=event, urls=found) for (seq, event), found in zip(events, urls, strict=True)
    )


def presign(store: ObjectStore, access: Access, expires_s: float) -> str:
    if access.method is Method.PUT:
        return store.presign_put(access.key, access.size, expires_s)
    return store.presign_get(access.key, expires_s)


def _presign(store: ObjectStore, wanted: Iterable[Access], expires_s: float) -> dict[str, str]:
    return {access.key: presign(store, access, expires_s) for access in wanted}


def _planned(coordinator: Coordinator, member: Member, plan: Plan) -> list[Access]:
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
            found += _sent(coordinator.spec, member.hotkey, name, partial(plan.miner, microbatch))
    return found


def _rerouted(coordinator: Coordinator, member: Member, event: Reroute) -> list[Access]:
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
        found += _sent(coordinator.spec, member.hotkey, name, lambda s: event.route[s])
    return found


def _sent(spec: RunSpec, sender: str, name: FrameName, miner_at: Callable[[int], str]) -> list[Access]:
    """The PUT of one frame; none where the model ends."""
    towards = name.direction.destination(name.stage, spec.layout.stages)
    if towards is None:
        return []
    return [
        Access(Method.PUT, str(FrameKey(spec.id, name)), frame_size(spec, name, sender, miner_at(towards)))
    ]


def _reads(objects: Iterable[StoredObject]) -> list[Access]:
    return [Access(Method.GET, stored.key) for stored in objects]
