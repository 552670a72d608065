"""What a hostile member repeats or makes up gives no entry in the journal, and changes nothing."""

from __future__ import annotations

import copy

import pytest

from iota.protocol.frames import Direction, FrameName, FrameNotice
from iota.protocol.messages import BadValue, ExchangeRequest, FrameMissing
from iota.protocol.receipts import OpKind
from iota.simulate.names import digest
from iota.simulate.swarm import VirtualSwarm
from iota.spec import Pipeline
from iota.wire.frame import frame_size
from orchestrator.coordinator import Exchanged, Member
from orchestrator.coordinator.state import Phase
from tests.support.virtual_runs import tiny_spec


@pytest.fixture(scope="module")
def swarm() -> VirtualSwarm:
    """Two stages of two replicas; the first step is closed, and some microbatch of the second has ended."""
    spec = tiny_spec(
        stages=2, replicas=2, epochs=2, steps=4, microbatches=6, pipeline=Pipeline.DELAYED, credit=2
    )
    swarm = VirtualSwarm(spec, 1, push_rate=0.0)
    for _ in range(4):
        swarm.add_miner()
    swarm.run(lambda: swarm.state.totals.settled == 8, limit_s=1000)
    assert (swarm.state.phase, swarm.state.current.closed_steps) == (Phase.TRAINING, 1)
    return swarm


def _costs_nothing(swarm: VirtualSwarm, member: Member, **what: object) -> None:
    """It gives no entry; and where it is in a journal all the same, no event and no other state."""
    request = ExchangeRequest(cursor=0, **what)  # type: ignore[arg-type]
    assert swarm.intake.exchange(member.hotkey, request, swarm.now) is None
    coordinator = copy.deepcopy(swarm.coordinator)
    before = copy.deepcopy(coordinator.state)
    receipts = () if request.receipts is None else request.receipts.receipts
    coordinator.apply(
        Exchanged(
            at=before.now,
            hotkey=member.hotkey,
            receipts=receipts,
            frames=request.frames,
            reports=request.reports,
        )
    )
    before.totals.unfit = coordinator.state.totals.unfit
    assert coordinator.state == before


def _notice(swarm: VirtualSwarm, sender: Member, receiver: str, step: int, index: int) -> FrameNotice:
    """A frame of `sender` to the other stage, as the planned route has it."""
    direction = Direction.FORWARD if sender.stage == 0 else Direction.BACKWARD
    name = FrameName(epoch=0, step=step, microbatch=index, attempt=0, stage=sender.stage, direction=direction)
    size = frame_size(swarm.spec, name, sender.hotkey, receiver)
    return FrameNotice(name=name, digest=digest(name), size=size)


def _ended(swarm: VirtualSwarm) -> tuple[int, list[str]]:
    """A microbatch of the open step that has ended, and its route."""
    mb = next(mb for mb in swarm.state.current.steps[1].microbatches if mb.ended is not None)
    return mb.index, [place.miner for place in mb.places]


@pytest.mark.parametrize("stage", [0, 1])
def test_frames_of_steps_that_are_closed_not_planned_or_of_another_cost_nothing(
    swarm: VirtualSwarm, stage: int
) -> None:
    for member in swarm.state.miners(stage):
        receiver = swarm.state.miners(1 - stage)[0].hotkey
        frames = [_notice(swarm, member, receiver, step, index) for step in (0, 3, 9) for index in (0, 5, 77)]
        ended, _ = _ended(swarm)
        _costs_nothing(swarm, member, frames=(*frames, _notice(swarm, member, receiver, 1, ended)))


def test_a_frame_that_is_announced_already_costs_nothing(swarm: VirtualSwarm) -> None:
    mb = next(
        mb
        for mb in swarm.state.current.steps[1].microbatches
        if mb.ended is None and mb.places[0].forward is not None
    )
    sender = swarm.state.members[mb.places[0].miner]
    known = _notice(swarm, sender, mb.places[1].miner, 1, mb.index)
    other = known.model_copy(update={"digest": "de" * 32})
    _costs_nothing(swarm, sender, frames=(known, known, other))


def test_bad_values_cost_nothing_but_once_and_of_the_members_own_work(swarm: VirtualSwarm) -> None:
    ended, route = _ended(swarm)
    open_one = next(mb for mb in swarm.state.current.steps[1].microbatches if mb.ended is None)
    holder = open_one.places[0].miner
    for member in swarm.state.miners():
        steps = [(epoch, step) for epoch in (0, 1) for step in (0, 9)]
        made_up = [BadValue(epoch=e, step=s, microbatch=i) for e, s in steps for i in (0, 77)]
        if member.hotkey in route:
            made_up.append(BadValue(epoch=0, step=1, microbatch=ended))
        if member.stage == 0 and member.hotkey != holder:
            made_up.append(BadValue(epoch=0, step=1, microbatch=open_one.index))
        _costs_nothing(swarm, member, reports=tuple(made_up))
    own = BadValue(epoch=0, step=1, microbatch=open_one.index)
    request = ExchangeRequest(cursor=0, reports=(own,))
    said = swarm.intake.exchange(holder, request, swarm.now)
    assert said is not None
    assert said.reports == (own,)


def test_missing_frames_of_closed_steps_and_ended_microbatches_cost_nothing(swarm: VirtualSwarm) -> None:
    ended, _ = _ended(swarm)
    for member in swarm.state.miners():
        sender = swarm.state.miners(1 - member.stage)[0]
        names = [
            _notice(swarm, sender, member.hotkey, step, index).name
            for step, index in ((0, 0), (0, 5), (1, ended), (1, 77), (9, 0))
        ]
        reports = tuple(FrameMissing(name=name, reason="made up") for name in names)
        _costs_nothing(swarm, member, reports=reports)


def test_receipts_that_are_stored_already_cost_nothing(swarm: VirtualSwarm) -> None:
    member = swarm.state.miners(0)[0]
    sent = next(
        entry.receipts
        for entry in swarm.entries
        if isinstance(entry, Exchanged) and entry.hotkey == member.hotkey and entry.receipts
    )
    assert any(receipt.kind is OpKind.FORWARD for receipt in sent)
    batch = {"receipts": sent, "signature": "0" * 128}
    _costs_nothing(swarm, member, receipts=batch)
