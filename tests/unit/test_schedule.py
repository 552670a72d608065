"""The order in which a replica runs its ops."""

from __future__ import annotations

from typing import Any

from iota.protocol.events import Drop, Reroute, StepClose
from iota.protocol.frames import Direction
from iota.protocol.plans import PlanShare
from iota.protocol.receipts import OpKind
from iota.simulate.names import fake_hotkey
from iota.spec import Pipeline
from miner.core.schedule import Op, Schedule
from tests.support.plans import share_of, whole_plan
from tests.support.virtual_runs import tiny_spec

ME, UP, DOWN, OTHER = fake_hotkey(1), fake_hotkey(0), fake_hotkey(2), fake_hotkey(3)


def _schedule(
    stage: int,
    *,
    pipeline: Pipeline = Pipeline.DELAYED,
    credit: int = 8,
    microbatches: int = 3,
    heldout: int = 0,
) -> Schedule:
    spec = tiny_spec(
        stages=3, replicas=1, epochs=1, steps=4, microbatches=microbatches, pipeline=pipeline,
        credit=credit, heldout=heldout,
    )  # fmt: skip
    return Schedule(spec, stage, ME, 0)


def _plan(step: int, stage: int) -> PlanShare:
    chain = [UP, DOWN]
    chain.insert(stage, ME)
    return share_of(whole_plan(chain, 3, step=step), ME).share


def _close(step: int, *counted: int) -> StepClose:
    chosen = tuple((i, 0) for i in counted)
    return StepClose(epoch=0, step=step, counted=chosen, learning_rate=0.1)


def _do(schedule: Schedule, op: Op) -> None:
    """An op begins, and its result comes to the disk."""
    schedule.begin(op)
    schedule.done(op)


def _run(schedule: Schedule) -> list[tuple[OpKind, int, int]]:
    """Run everything that can run now."""
    ran = []
    while (op := schedule.next_op()) is not None:
        _do(schedule, op)
        ran.append((op.kind, op.step, op.microbatch))
    return ran


def _next(schedule: Schedule) -> Op:
    op = schedule.next_op()
    assert op is not None
    return op


def test_forwards_keep_the_plans_order_even_if_a_later_input_comes_first() -> None:
    schedule = _schedule(1)
    schedule.plan(_plan(0, 1))
    schedule.frame(0, 2, Direction.FORWARD)
    assert schedule.next_op() is None
    schedule.frame(0, 0, Direction.FORWARD)
    schedule.frame(0, 1, Direction.FORWARD)
    assert _run(schedule) == [(OpKind.FORWARD, 0, i) for i in range(3)]


def test_a_ready_backward_goes_before_a_ready_forward() -> None:
    schedule = _schedule(1)
    schedule.plan(_plan(0, 1))
    schedule.frame(0, 0, Direction.FORWARD)
    schedule.frame(0, 1, Direction.FORWARD)
    _do(schedule, _next(schedule))
    schedule.frame(0, 0, Direction.BACKWARD)
    assert _next(schedule).kind is OpKind.BACKWARD


def test_backwards_wait_for_their_turn() -> None:
    schedule = _schedule(0)
    schedule.plan(_plan(0, 0))
    assert _run(schedule) == [(OpKind.FORWARD, 0, i) for i in range(3)]
    schedule.frame(0, 1, Direction.BACKWARD)
    assert schedule.next_op() is None
    schedule.frame(0, 0, Direction.BACKWARD)
    assert _run(schedule) == [(OpKind.BACKWARD, 0, 0), (OpKind.BACKWARD, 0, 1)]


def test_credit_bounds_what_is_in_flight() -> None:
    schedule = _schedule(0, credit=1)
    schedule.plan(_plan(0, 0))
    assert _run(schedule) == [(OpKind.FORWARD, 0, 0)]
    schedule.frame(0, 0, Direction.BACKWARD)
    assert _run(schedule) == [(OpKind.BACKWARD, 0, 0), (OpKind.FORWARD, 0, 1)]


def test_the_last_stage_runs_loss_in_order() -> None:
    schedule = _schedule(2)
    schedule.plan(_plan(0, 2))
    for index in range(3):
        schedule.frame(0, index, Direction.FORWARD)
    assert _run(schedule) == [(OpKind.LOSS, 0, i) for i in range(3)]


def test_sync_waits_for_the_step_and_delayed_runs_ahead_of_it() -> None:
    for pipeline, ahead in ((Pipeline.SYNC, []), (Pipeline.DELAYED, [(OpKind.FORWARD, 1, 0)])):
        schedule = _schedule(0, pipeline=pipeline)
        schedule.plan(_plan(0, 0))
        schedule.plan(_plan(1, 0))
        ran = _run(schedule)
        assert ran[:3] == [(OpKind.FORWARD, 0, i) for i in range(3)]
        assert ran[3:4] == ahead


def test_versions_follow_from_the_name_alone() -> None:
    schedule = _schedule(0)
    versions = []
    for step in range(4):
        schedule.plan(_plan(step, 0))
        versions.append(_next(schedule).version)
        for index in range(3):
            schedule.frame(step, index, Direction.BACKWARD)
        _run(schedule)
        schedule.close(_close(step, 0, 1, 2))
        assert _next(schedule).kind is OpKind.STEP
        _run(schedule)
    assert versions == [0, 0, 1, 2]
    assert schedule.finished


def test_a_step_takes_the_counted_list_of_its_close() -> None:
    schedule = _schedule(0)
    schedule.plan(_plan(0, 0))
    for index in range(3):
        schedule.frame(0, index, Direction.BACKWARD)
    _run(schedule)
    schedule.close(_close(0, 2, 0))
    op = _next(schedule)
    assert (op.kind, op.counted, op.learning_rate) == (OpKind.STEP, ((2, 0), (0, 0)), 0.1)


def test_a_dropped_microbatch_holds_up_nothing() -> None:
    schedule = _schedule(0, credit=1)
    schedule.plan(_plan(0, 0))
    _run(schedule)
    assert schedule.drop(Drop(epoch=0, step=0, microbatch=0))
    assert _run(schedule) == [(OpKind.FORWARD, 0, 1)]


def _reroute(index: int, miner: str, replaces: str, *, stage: int, send: bool) -> Reroute:
    return Reroute(
        epoch=0,
        step=0,
        microbatch=index,
        stage=stage,
        attempt=1,
        miner=miner,
        replaces=replaces,
        before=UP,
        after=DOWN,
        send_forward=send,
    )


def test_work_taken_over_needs_no_credit() -> None:
    schedule = _schedule(1, credit=1, microbatches=8)
    schedule.plan(_plan(0, 1))
    schedule.frame(0, 0, Direction.FORWARD)
    _run(schedule)
    spec_index = 7
    schedule.reroute(_reroute(spec_index, ME, OTHER, stage=1, send=True))
    schedule.frame(0, spec_index, Direction.FORWARD)
    schedule.frame(0, 1, Direction.FORWARD)
    schedule.frame(0, 2, Direction.FORWARD)
    for index in range(2):
        schedule.frame(0, index, Direction.BACKWARD)
    ran = _run(schedule)
    assert ran[-1] == (OpKind.FORWARD, 0, spec_index)
    assert schedule.credit_used() == 2


def test_the_first_microbatch_needs_no_credit_that_a_later_one_has() -> None:
    schedule = _schedule(1, credit=1, microbatches=8)
    schedule.plan(_plan(0, 1))
    schedule.frame(0, 0, Direction.FORWARD)
    bad = _next(schedule)
    schedule.begin(bad)
    for index in (1, 2):
        schedule.reroute(_reroute(index, OTHER, ME, stage=1, send=True))
    schedule.reroute(_reroute(7, ME, OTHER, stage=1, send=True))
    schedule.frame(0, 7, Direction.FORWARD)
    later = _next(schedule)
    assert later.microbatch == 7
    _do(schedule, later)
    schedule.undo(bad)
    assert (_next(schedule).microbatch, schedule.credit_used()) == (0, 1)


def test_a_backward_alone_is_run_where_the_next_stage_has_its_input() -> None:
    schedule = _schedule(1)
    schedule.reroute(_reroute(0, ME, OTHER, stage=1, send=False))
    schedule.frame(0, 0, Direction.FORWARD)
    assert schedule.next_op() is None
    schedule.frame(0, 0, Direction.BACKWARD)
    op = _next(schedule)
    assert (op.kind, op.attempt, op.send_forward) == (OpKind.BACKWARD, 1, False)


def test_a_relieved_replica_forgets_the_microbatch() -> None:
    schedule = _schedule(1)
    schedule.plan(_plan(0, 1))
    schedule.frame(0, 0, Direction.FORWARD)
    schedule.frame(0, 1, Direction.FORWARD)
    schedule.reroute(_reroute(0, OTHER, ME, stage=1, send=True))
    assert _run(schedule) == [(OpKind.FORWARD, 0, 1)]
    assert not schedule.frame(0, 0, Direction.BACKWARD)


def test_a_joiner_starts_at_its_step_with_the_base() -> None:
    spec = tiny_spec(
        stages=1, replicas=1, epochs=1, steps=4, microbatches=1, pipeline=Pipeline.DELAYED, credit=1
    )
    schedule = Schedule(spec, 0, ME, 0, joined=2)
    plan = share_of(whole_plan((ME,), 1, step=2), ME).share
    assert schedule.plan(plan.model_copy(update={"step": 1})) == []
    schedule.plan(plan)
    assert _next(schedule).version == 2


def test_a_step_waits_until_what_counts_has_been_run_again() -> None:
    schedule = _schedule(1)
    schedule.plan(_plan(0, 1))
    schedule.frame(0, 0, Direction.FORWARD)
    schedule.reroute(_reroute(0, OTHER, ME, stage=1, send=True))
    schedule.frame(0, 0, Direction.BACKWARD)
    schedule.close(_close(0, 0))
    assert _run(schedule) == [(OpKind.FORWARD, 0, 0), (OpKind.BACKWARD, 0, 0), (OpKind.STEP, 0, 0)]


def test_what_does_not_count_in_a_closed_step_holds_up_nothing() -> None:
    schedule = _schedule(0)
    schedule.plan(_plan(0, 0))
    schedule.frame(0, 2, Direction.BACKWARD)
    schedule.close(_close(0, 2))
    assert _run(schedule)[-2:] == [(OpKind.BACKWARD, 0, 2), (OpKind.STEP, 0, 0)]


def _heldout(stage: int, **options: Any) -> Schedule:
    """A replica with three microbatches to train on in step 0 and two held-out ones, and step 1 planned."""
    schedule = _schedule(stage, heldout=2, **options)
    chain = [UP, DOWN]
    chain.insert(stage, ME)
    schedule.plan(share_of(whole_plan(chain, 5), ME).share)
    schedule.plan(_plan(1, stage))
    return schedule


def test_held_out_microbatches_come_after_the_forwards_of_their_step_and_before_the_next_step() -> None:
    schedule = _heldout(0)
    first, later = [(OpKind.FORWARD, 0, i) for i in range(5)], [(OpKind.FORWARD, 1, i) for i in range(3)]
    assert _run(schedule) == first + later
    assert schedule.credit_used() == 6  # held-out ones keep nothing
    schedule = _heldout(0, credit=2)
    assert _run(schedule) == first[:2]  # the third waits for a backward, and nothing overtakes it


def test_a_held_out_microbatch_whose_input_is_missing_holds_nothing_up() -> None:
    schedule = _heldout(2)
    for step, index in ((0, 0), (0, 1), (0, 2), (0, 4), (1, 0)):
        schedule.frame(step, index, Direction.FORWARD)
    ran = _run(schedule)
    assert ran == [*((OpKind.LOSS, 0, i) for i in range(3)), (OpKind.EVAL, 0, 4), (OpKind.LOSS, 1, 0)]
    schedule.frame(0, 3, Direction.FORWARD)
    assert _run(schedule) == [(OpKind.EVAL, 0, 3)]


def test_a_closed_step_runs_its_step_without_its_held_out_microbatches() -> None:
    schedule = _heldout(0)
    forwards = [_next(schedule) for _ in range(3) if not _do(schedule, _next(schedule))]
    assert len(forwards) == 3
    for index in range(3):
        schedule.frame(0, index, Direction.BACKWARD)
    schedule.close(_close(0, 0, 1, 2))
    ran = _run(schedule)
    assert (OpKind.STEP, 0, 0) in ran
    assert not any(step == 0 and index > 2 for _, step, index in ran)


def test_a_gradient_for_a_held_out_microbatch_is_never_used() -> None:
    schedule = _heldout(1)
    schedule.frame(0, 3, Direction.FORWARD)
    schedule.frame(0, 3, Direction.BACKWARD)
    assert schedule.next_op() is None  # the forwards of its step come first
    for index in range(3):
        schedule.frame(0, index, Direction.FORWARD)
    assert _run(schedule) == [(OpKind.FORWARD, 0, i) for i in range(4)]
