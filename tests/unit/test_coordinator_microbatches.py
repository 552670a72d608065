"""Microbatches: offered along their routes, settled once, and steps closed when all have ended."""

from __future__ import annotations

import pytest

from iota.protocol.events import Drop, FrameReady, Reroute, StepClose
from iota.protocol.frames import Direction
from iota.protocol.messages import BadValue, FrameMissing, Ready
from iota.protocol.receipts import OpKind
from iota.spec import Pipeline
from orchestrator.coordinator import Left
from orchestrator.coordinator.epoch_state import Ending, counted_pairs
from tests.support.coordinators import Driven, frame
from tests.support.small_spec import small_spec
from tests.support.virtual_runs import tiny_spec


@pytest.fixture
def driven() -> Driven:
    """Two stages of one replica each, two microbatches a step."""
    found = Driven.training(small_spec())
    for member in found.state.miners():
        found.news(member)
    return found


def test_a_stored_frame_is_offered_to_the_next_replica_alone(driven: Driven) -> None:
    first, second = driven.state.miners()
    driven.run_op(0, 0, 0, OpKind.FORWARD)
    offered = [e for e in driven.news(second) if isinstance(e, FrameReady)]
    assert [(e.sender, e.notice.name.direction) for e in offered] == [(first.hotkey, Direction.FORWARD)]
    assert driven.news(first) == []


def test_a_frame_that_is_said_again_is_not_offered_again(driven: Driven) -> None:
    first, second = driven.state.miners()
    driven.run_op(0, 0, 0, OpKind.FORWARD)
    driven.news(second)
    driven.say(first, frames=[frame(0, 0, 0, 0, 0, Direction.FORWARD)])
    assert driven.news(second) == []
    assert driven.state.totals.unfit == 1


@pytest.mark.parametrize(
    "name",
    [(0, 9, 0, 0), (0, 0, 9, 0), (1, 0, 0, 0), (0, 0, 0, 1)],
    ids=["step", "index", "epoch", "attempt"],
)
def test_a_frame_that_nobody_asked_for_is_counted_and_ignored(
    driven: Driven, name: tuple[int, int, int, int]
) -> None:
    first, second = driven.state.miners()
    epoch, step, index, attempt = name
    driven.say(first, frames=[frame(epoch, step, index, attempt, 0, Direction.FORWARD)])
    assert driven.state.totals.unfit == 1
    assert driven.news(second) == []


def test_a_microbatch_settles_when_every_stage_has_counted_it(driven: Driven) -> None:
    microbatch = driven.state.current.steps[0].microbatches[0]
    driven.run_microbatch(0, 0)
    totals = driven.state.totals
    assert (totals.settled, totals.tokens) == (1, driven.coordinator.spec.data.tokens)
    assert microbatch.ended is Ending.SETTLED


def test_a_step_closes_when_its_last_microbatch_ends_and_says_what_counts(driven: Driven) -> None:
    driven.run_microbatch(0, 1)
    driven.run_microbatch(0, 0)
    for member in driven.state.miners():
        closes = [e for e in driven.news(member) if isinstance(e, StepClose)]
        assert [e.counted for e in closes] == [((1, 0), (0, 0))]
    assert driven.state.totals.losses == [2.0]


def test_a_bad_value_drops_the_microbatch_for_everyone_on_its_route(driven: Driven) -> None:
    _, second = driven.state.miners()
    driven.run_op(0, 0, 0, OpKind.FORWARD)
    driven.say(second, reports=[BadValue(epoch=0, step=0, microbatch=0)])
    assert driven.state.totals.dropped == 1
    for member in driven.state.miners():
        assert any(isinstance(e, Drop) for e in driven.news(member))


def test_a_bad_value_of_a_replica_without_the_microbatch_changes_nothing() -> None:
    driven = Driven.training(small_spec(layout={"cuts": [1, 2], "replicas": 2}))
    holder = driven.state.current.steps[0].microbatches[0].places[0].miner
    other = next(m for m in driven.state.miners(0) if m.hotkey != holder)
    driven.say(other, reports=[BadValue(epoch=0, step=0, microbatch=0)])
    assert (driven.state.totals.dropped, driven.state.totals.unfit) == (0, 1)


def test_work_of_a_lost_replica_goes_to_another_of_its_stage() -> None:
    driven = Driven.training(small_spec(layout={"cuts": [1, 2], "replicas": 2}))
    holder = driven.state.members[driven.state.current.steps[0].microbatches[0].places[1].miner]
    other = next(m for m in driven.state.miners(1) if m is not holder)
    driven.news(other)
    driven.lose(holder)
    taken = [e for e in driven.news(other) if isinstance(e, Reroute) and e.step == 0]
    assert [(e.miner, e.attempt > 0, e.stage) for e in taken] == [(other.hotkey, True, 1)]
    assert driven.state.totals.rerouted > 0


def test_work_of_the_only_replica_that_left_goes_to_the_one_that_joins_after(driven: Driven) -> None:
    _, gone = driven.state.miners()
    driven.run_microbatch(0, 0)
    driven.run_op(0, 1, 0, OpKind.FORWARD)
    open_work = set(gone.work)
    assert open_work == {(0, 1), (1, 0), (1, 1)}
    driven.coordinator.apply(Left(at=driven.now, hotkey=gone.hotkey))
    new = driven.join(7)
    assert (new.stage, set(gone.work)) == (1, open_work)
    driven.say(new, reports=[Ready(epoch=0, digest=f"{1:064x}")])
    assert (set(new.work), set(gone.work)) == (open_work, set())
    news = driven.news(new)
    assert {(e.step, e.microbatch) for e in news if isinstance(e, Reroute)} == open_work
    assert [e.notice.name.microbatch for e in news if isinstance(e, FrameReady)] == [1]
    driven.run_op(0, 1, 1, OpKind.LOSS)
    driven.run_op(0, 1, 0, OpKind.BACKWARD)
    assert driven.state.current.closed_steps == 1


def test_a_missing_frame_is_made_again_by_another_replica_or_ends_the_microbatch(driven: Driven) -> None:
    _, second = driven.state.miners()
    driven.run_op(0, 0, 0, OpKind.FORWARD)
    name = frame(0, 0, 0, 0, 0, Direction.FORWARD).name
    driven.say(second, reports=[FrameMissing(name=name, reason="gone")])
    assert driven.state.totals.dropped == 1  # there is no other replica of stage 0


def _two_replicas() -> Driven:
    """Two stages of two replicas each, one step of four microbatches."""
    return Driven.training(
        tiny_spec(stages=2, replicas=2, epochs=1, steps=1, microbatches=4, pipeline=Pipeline.SYNC, credit=2)
    )


def test_who_joins_anew_does_not_void_its_neighbours_work() -> None:
    driven = _two_replicas()
    step = driven.state.current.steps[0]
    gone = driven.state.members[step.microbatches[0].places[1].miner]
    done = [mb.index for mb in step.microbatches if mb.places[1].miner == gone.hotkey]
    for index in done:
        driven.run_ops(0, index)
    assert driven.state.totals.settled == len(done) == 2
    driven.join(gone.order)
    assert (driven.state.totals.settled, driven.state.totals.tokens) == (0, 0)
    for mb in list(step.microbatches):
        if mb.index in done:
            driven.run_op(0, mb.index, 1, OpKind.LOSS)
        else:
            driven.run_ops(0, mb.index)
    assert (driven.state.current.closed_steps, driven.state.totals.settled) == (1, 4)
    assert gone.withdrawn == 2
    counted: dict[int, list[int]] = {0: [], 1: []}
    for hotkey, order in step.order.items():
        counted[driven.state.members[hotkey].stage] += [index for index, _ in counted_pairs(order)]
    assert sorted(counted[0]) == sorted(counted[1]) == [0, 1, 2, 3]


def test_an_attempt_that_came_too_late_counts_once_the_one_that_counted_is_void() -> None:
    driven = _two_replicas()
    mb = driven.state.current.steps[0].microbatches[0]
    first = driven.state.members[mb.places[1].miner]
    driven.run_op(0, 0, 0, OpKind.FORWARD)
    driven.say(first, receipts=[driven.receipt(first, OpKind.LOSS, 0, 0)])  # without its frame
    driven.wait(11)
    second = driven.state.members[mb.places[1].miner]
    driven.run_op(0, 0, 1, OpKind.LOSS)
    driven.run_op(0, 0, 0, OpKind.BACKWARD)
    assert (second is first, driven.state.current.counted) == (
        False,
        {first.hotkey: 1, mb.places[0].miner: 1},
    )
    driven.join(first.order)
    assert driven.state.current.counted == {second.hotkey: 1, mb.places[0].miner: 1}
    assert (mb.ended, mb.places[1].miner) == (Ending.SETTLED, second.hotkey)


def test_who_left_and_comes_back_with_its_disk_hears_what_was_closed_meanwhile() -> None:
    driven = Driven.training(small_spec(schedule={"epochs": 2, "steps": 1, "microbatches": 2}))
    _, gone = driven.state.miners()
    driven.run_microbatch(0, 0)
    driven.run_op(0, 1, 0, OpKind.FORWARD)
    driven.run_op(0, 1, 1, OpKind.LOSS)
    driven.news(gone)
    driven.coordinator.apply(Left(at=driven.now, hotkey=gone.hotkey))
    driven.run_op(0, 1, 0, OpKind.BACKWARD)
    driven.join(gone.order, receipts=gone.receipts, epoch=0)
    assert [event.step for event in driven.news(gone) if isinstance(event, StepClose)] == [0]
    driven.receipt_steps()
    driven.give_all()
    driven.coordinator.apply(Left(at=driven.now, hotkey=gone.hotkey))
    driven.draw_mergers()
    driven.merge_all()
    driven.join(gone.order, receipts=gone.receipts, epoch=0)
    ready = driven.state.current.merges[gone.stage].ready
    assert ready is not None
    assert ready in driven.news(gone)


def test_the_only_replica_of_a_stage_that_joins_anew_does_its_counted_work_again(driven: Driven) -> None:
    _, gone = driven.state.miners()
    driven.run_microbatch(0, 0)
    driven.join(gone.order)
    driven.say(gone, reports=[Ready(epoch=0, digest=f"{1:064x}")])
    assert driven.state.totals.settled == 0
    driven.run_op(0, 0, 1, OpKind.LOSS)
    driven.run_microbatch(0, 1)
    assert (driven.state.current.closed_steps, driven.state.totals.settled) == (1, 2)
