"""A member that has work and does not do it is late, whatever else it says: it cannot hold up the run."""

from __future__ import annotations

import pytest

from iota.protocol.events import LoadBase
from iota.protocol.frames import Direction, StoredObject
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    BaseStored,
    Capabilities,
    Delta,
    JoinRequest,
    Ready,
    Role,
)
from iota.protocol.receipts import OpKind
from iota.spec import Pipeline
from orchestrator.coordinator import Joined
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.op_clocks import own_limit
from tests.support.coordinators import Driven, frame
from tests.support.small_spec import small_spec
from tests.support.virtual_runs import tiny_spec


@pytest.fixture
def driven() -> Driven:
    """One stage of two replicas with planned work."""
    return Driven.training(
        tiny_spec(stages=1, replicas=2, epochs=1, steps=4, microbatches=4, pipeline=Pipeline.SYNC, credit=1)
    )


def _again(member: Member) -> JoinRequest:
    return JoinRequest(
        role=Role.MINER,
        versions=(PROTOCOL_VERSION,),
        capabilities=Capabilities(device="test", memory=1, flops=1.0),
        receipts=member.receipts,
        epoch=0,
    )


def test_receipts_of_steps_that_are_not_closed_are_no_progress(driven: Driven) -> None:
    idler = driven.state.miners(0)[0]
    for step in range(1, 9):
        driven.say(idler, receipts=[driven.receipt(idler, OpKind.STEP, step, 0)])
        driven.wait(3)
    assert idler.stalled


def test_the_step_of_a_closed_step_is_progress_once(driven: Driven) -> None:
    for index in range(4):
        driven.run_op(0, index, 0, OpKind.LOSS)
    assert driven.state.current.closed_steps == 1
    member, times = driven.state.miners(0)[0], []
    for _ in range(2):
        driven.wait(3)
        driven.say(member, receipts=[driven.receipt(member, OpKind.STEP, 0, 0)])
        times.append(member.last_progress)
    assert times == [driven.now - 3] * 2


@pytest.mark.parametrize("kept_back", ["receipt", "frame"])
def test_who_keeps_the_frame_or_the_receipt_of_a_loss_back_is_late_and_the_step_closes(
    kept_back: str,
) -> None:
    driven = Driven.training(
        tiny_spec(stages=2, replicas=2, epochs=1, steps=1, microbatches=2, pipeline=Pipeline.SYNC, credit=2)
    )
    place = driven.state.current.steps[0].microbatches[0].places[1]
    idler = driven.state.members[place.miner]
    driven.run_op(0, 0, 0, OpKind.FORWARD)
    if kept_back == "receipt":
        driven.say(idler, frames=[frame(0, 0, 0, 0, 1, Direction.BACKWARD)])
    else:
        driven.say(idler, receipts=[driven.receipt(idler, OpKind.LOSS, 0, 0)])
    driven.wait(11)
    assert (idler.stalled, place.miner == idler.hotkey) == (True, False)
    driven.run_op(0, 0, 1, OpKind.LOSS)
    driven.run_op(0, 0, 0, OpKind.BACKWARD)
    driven.run_ops(0, 1)
    assert driven.state.current.closed_steps == 1


def test_who_took_over_a_backward_alone_and_has_done_it_is_not_late() -> None:
    driven = Driven.training(
        tiny_spec(stages=3, replicas=2, epochs=1, steps=1, microbatches=2, pipeline=Pipeline.SYNC, credit=2)
    )
    mb = driven.state.current.steps[0].microbatches[0]
    for stage in range(2):
        driven.run_op(0, 0, stage, OpKind.FORWARD)
    driven.lose(driven.state.members[mb.places[1].miner])
    driven.run_op(0, 0, 2, OpKind.LOSS)
    driven.run_op(0, 0, 1, OpKind.BACKWARD)
    taker, idler = (driven.state.members[mb.places[stage].miner] for stage in (1, 0))
    assert (0, 0) not in {op[:2] for op in taker.pending}
    assert (0, 0, Direction.BACKWARD) in idler.pending


def test_joining_again_and_again_gives_no_more_time(driven: Driven) -> None:
    idler = driven.state.miners(0)[0]
    for _ in range(9):
        driven.coordinator.apply(Joined(at=driven.now, hotkey=idler.hotkey, request=_again(idler)))
        assert idler.resume
        driven.wait(3)
    assert idler.stalled


def test_restarts_after_each_op_have_the_time_to_repeat_the_epoch_once() -> None:
    driven = _many_ops(replicas=2)
    idler, extra = driven.state.miners(0)[0], 0.0
    for _ in range(8):
        driven.coordinator.apply(Joined(at=driven.now, hotkey=idler.hotkey, request=_again(idler)))
        due = driven.state.clocks.deadline(idler, next(iter(idler.pending)))
        assert due is not None
        extra += max(0.0, due - driven.now - max(driven.state.deadlines.ops[0].seconds, idler.own_s))
        driven.wait(due - driven.now)
        assert not idler.stalled
        step, index, _ = next(iter(idler.pending))
        driven.run_op(step, index, 0, OpKind.LOSS)
    assert 0 < extra < 2 * driven.state.limits.first_s


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_replica_that_restarts_twice_in_an_epoch_may_repeat_it_twice(replicas: int) -> None:
    driven = _many_ops(replicas)
    honest = driven.state.miners(0)[0]
    for _ in range(2):
        driven.coordinator.apply(Joined(at=driven.now, hotkey=honest.hotkey, request=_again(honest)))
        driven.wait(4 if replicas == 2 else 9)  # it starts up, and repeats its ops of 0.1 s
        step, index, _ = next(iter(honest.pending))
        driven.run_op(step, index, 0, OpKind.LOSS)
    assert (honest.stalled, honest.withdrawn) == (False, 0)


def _many_ops(replicas: int) -> Driven:
    """One stage at work, whose ops take 0.1 s."""
    spec = tiny_spec(
        stages=1, replicas=replicas, epochs=1, steps=2, microbatches=40, pipeline=Pipeline.SYNC, credit=1
    )
    driven = Driven.training(spec)
    for index in range(20):
        driven.wait(0.1)
        driven.run_op(0, index, 0, OpKind.LOSS)
    return driven


def test_a_replica_that_answers_at_once_does_not_make_its_honest_neighbour_late() -> None:
    driven = Driven.training(
        tiny_spec(stages=1, replicas=2, epochs=1, steps=2, microbatches=16, pipeline=Pipeline.SYNC, credit=2)
    )
    quick, honest = driven.state.miners(0)
    for step in driven.state.current.steps:
        own = [
            [mb.index for mb in step.microbatches if mb.places[0].miner == m.hotkey] for m in (quick, honest)
        ]
        for index in own[0]:
            driven.run_op(step.number, index, 0, OpKind.LOSS)
        assert driven.state.deadlines.ops[0].seconds < 4
        for index in own[1]:
            driven.wait(4)
            driven.run_op(step.number, index, 0, OpKind.LOSS)
        driven.receipt_steps()
    assert driven.state.current.closed_steps == 2
    assert (honest.withdrawn, honest.stalled) == (0, False)


@pytest.mark.parametrize(("op_seconds", "seconds"), [(0.0, 10.0), (0.1, 0.4), (3.0, 12.0), (100.0, 16.0)])
def test_a_replica_has_four_times_its_usual_op_and_never_more_than_eight_limits_of_its_stage(
    driven: Driven, op_seconds: float, seconds: float
) -> None:
    stage, member = driven.state.deadlines.ops[0], driven.state.miners(0)[0]
    for _ in range(8):
        stage.add(1.0)
    member.op_seconds = op_seconds
    assert stage.seconds == 2.0
    assert own_limit(stage, member) == pytest.approx(seconds)


def test_joining_again_adds_nothing_to_the_clocks(driven: Driven) -> None:
    member = driven.state.miners(0)[0]
    for _ in range(3):
        driven.coordinator.apply(Joined(at=driven.now, hotkey=member.hotkey, request=_again(member)))
    assert not driven.state.incidents.internal
    assert [len(heap) for heap in driven.state.clocks._by_stage] == [2]


def test_the_keepers_of_a_base_take_turns() -> None:
    spec = tiny_spec(
        stages=1, replicas=3, epochs=1, steps=1, microbatches=3, pipeline=Pipeline.SYNC, credit=1
    )
    driven = Driven.training(spec)
    asked = set()
    for _ in range(3):
        asked.add(driven.state.bases.keepers[0, 0])
        driven.wait(11)
    assert len(asked) == 3


def test_a_member_without_counted_work_does_not_decide_a_merge() -> None:
    spec = tiny_spec(
        stages=1, replicas=2, epochs=1, steps=1, microbatches=2, pipeline=Pipeline.SYNC, credit=1
    )
    driven = Driven.training(spec)
    newcomer = driven.join(7)
    driven.say(newcomer, reports=[Ready(epoch=0, digest=f"{0:064x}")])
    for index in range(2):
        driven.run_microbatch(0, index)
    sizes = driven.state.part_bytes[0]
    parts = tuple(StoredObject(key=f"d/{n}", digest="1" * 64, size=size) for n, size in enumerate(sizes))
    driven.say(newcomer, reports=[Delta(epoch=0, parts=parts)])
    driven.wait(700)
    merge = driven.state.current.merges[0]
    assert (merge.deltas, merge.parts) == ({}, [])
    assert merge.fixed, "the newcomer holds the base, so the stage keeps it and the run goes on"


def test_the_events_of_a_member_that_never_takes_a_base_do_not_grow_with_the_epochs() -> None:
    spec = small_spec(layout={"cuts": [1, 2]}, schedule={"epochs": 9, "steps": 1, "microbatches": 1})
    driven = Driven.training(spec)
    honest, idler, held = driven.state.miners(), driven.join(7), []
    for epoch in range(8):
        driven.run_microbatch(0, 0)
        driven.give(*honest)
        driven.draw_mergers()
        driven.merge_all()
        for member in honest:
            digest = f"{member.stage:064x}"
            driven.say(member, reports=[Ready(epoch=epoch + 1, digest=digest)])
        driven.wait(driven.state.deadlines.merge.seconds + 1, driven.state.head.block + 1)
        for member in honest:
            parts = (StoredObject(key="k" * 150, digest="1" * 64, size=1),)
            driven.say(
                member, reports=[BaseStored(epoch=epoch + 1, digest=f"{member.stage:064x}", parts=parts)]
            )
        assert driven.state.epoch == epoch + 1
        held.append(len(driven.coordinator.events_after(idler.hotkey, 0)))
    assert held[-1] <= held[3]
    last = [event.epoch for event in driven.news(idler) if isinstance(event, LoadBase)]
    assert last[-1] >= 7
