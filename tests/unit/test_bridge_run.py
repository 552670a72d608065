"""What the run does by shared variables, and which it sets: pause, learning rate, best held-out loss."""

from __future__ import annotations

import json

import pytest

from iota.protocol.bridge import BEST_HELDOUT, LR_FACTOR, PAUSED, Delete, Op, Set, WriteRequest
from iota.protocol.events import Plan, StepClose
from iota.protocol.heldout import BaseLoss
from iota.simulate.names import fake_hotkey
from iota.spec import Pipeline, RunSpec
from orchestrator.bridge import Conflict, Forbidden
from orchestrator.coordinator import Bridged, bridging
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import Driven
from tests.support.virtual_runs import tiny_spec

OPERATOR = fake_hotkey(99)


def the_spec() -> RunSpec:
    return tiny_spec(
        stages=2, replicas=1, epochs=2, steps=4, microbatches=2, pipeline=Pipeline.SYNC, credit=2
    )


def write(driven: Driven, *ops: Op, by: str = OPERATOR) -> None:
    request = WriteRequest(request=f"{driven.state.bridge.revision:032x}", ops=ops)
    entry = Bridged(at=driven.now, hotkey=by, operator=by == OPERATOR, write=request)
    driven.coordinator.apply(entry)
    assert not driven.state.incidents.internal


def run_step(driven: Driven) -> None:
    """All microbatches of the open step, and the STEPs."""
    step = driven.state.current.closed_steps
    for index in range(driven.state.spec.schedule.microbatches):
        driven.run_microbatch(step, index)
    driven.receipt_steps()


def planned(driven: Driven) -> int:
    return len(driven.state.current.steps)


def test_a_paused_run_plans_no_further_steps_until_it_goes_on() -> None:
    driven = Driven.training(the_spec())
    write(driven, Set(name=PAUSED, value=True))
    assert planned(driven) == 2
    run_step(driven)
    run_step(driven)
    assert (planned(driven), driven.state.current.closed_steps) == (2, 2)
    assert "the operator has paused the run" in str(driven.coordinator.status()["waiting"])
    driven.wait(10_000.0)
    assert planned(driven) == 2
    write(driven, Set(name=PAUSED, value=False))
    assert planned(driven) == 4
    assert driven.coordinator.status()["waiting"] is None


@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_a_run_goes_on_when_the_variable_is_gone(how: str) -> None:
    driven = Driven.training(the_spec())
    write(driven, Set(name=PAUSED, value=True, ttl_s=60.0))
    run_step(driven)
    run_step(driven)
    assert planned(driven) == 2
    if how == "deleted":
        write(driven, Delete(name=PAUSED))
    else:
        assert driven.coordinator.next_deadline() is not None
        driven.wait(60.0)
    assert planned(driven) == 4


def test_a_run_that_is_paused_before_it_begins_waits_to_plan() -> None:
    spec = the_spec()
    driven = Driven.training(spec)
    fresh = type(driven)(type(driven.coordinator)(spec))
    write(fresh, Set(name=PAUSED, value=True))
    for number in range(2):
        fresh.join(number)
    fresh.hold_base()
    assert (fresh.state.phase, planned(fresh)) == (Phase.TRAINING, 0)
    write(fresh, Set(name=PAUSED, value=False))
    assert planned(fresh) == 2


def test_a_factor_acts_on_steps_that_are_planned_later_and_stands_in_plan_close_and_record() -> None:
    spec = the_spec()
    driven = Driven.training(spec)
    miner = driven.state.miners(0)[0]
    write(driven, Set(name=LR_FACTOR, value=0.25))
    for _ in range(4):
        run_step(driven)
    events = driven.news(miner)
    full = [spec.learning_rate(0, step) for step in range(4)]
    expected = [full[0], full[1], full[2] / 4, full[3] / 4]
    assert [event.share.learning_rate for event in events if isinstance(event, Plan)] == expected
    assert [event.learning_rate for event in events if isinstance(event, StepClose)] == expected
    plans = driven.coordinator.take_plans()
    assert [plan.learning_rate for plan in plans] == expected
    assert [driven.coordinator.plan_root(0, plan.step) for plan in plans] == [plan.root() for plan in plans]


def test_the_run_sets_the_lowest_heldout_loss_and_nobody_else_does() -> None:
    driven = Driven.training(the_spec())
    run = driven.state
    for epoch, loss in enumerate([3.0, 2.5, 2.75]):
        run.totals.heldout[epoch] = found = BaseLoss(loss, 0.1, 4, 64)
        bridging.note_loss(run, epoch, found)
    value = json.loads(run.bridge.value(BEST_HELDOUT) or "")
    assert value == {"epoch": 1, "loss": 2.5, "standard_error": 0.1, "tokens": 64}
    write(driven, Set(name=BEST_HELDOUT, value=value))
    assert isinstance(run.bridge.outcome, Forbidden)
    write(driven, Delete(name=BEST_HELDOUT))
    assert isinstance(run.bridge.outcome, Forbidden)


def test_members_and_those_that_left_do_not_pause_the_run() -> None:
    driven = Driven.training(the_spec())
    miner = driven.state.miners(0)[0]
    write(driven, Set(name=PAUSED, value=True), by=miner.hotkey)
    assert isinstance(driven.state.bridge.outcome, Forbidden)
    assert bridging.may_plan(driven.state)
    write(driven, Set(name=f"node/{miner.hotkey}/n", value=1), by=miner.hotkey)
    write(driven, Set(name=f"node/{miner.hotkey}/n", value=1, expected=77), by=miner.hotkey)
    assert isinstance(driven.state.bridge.outcome, Conflict)
    driven.state.roster.leave(miner)
    write(driven, Set(name=f"node/{miner.hotkey}/n", value=2), by=miner.hotkey)
    assert isinstance(driven.state.bridge.outcome, Forbidden)
