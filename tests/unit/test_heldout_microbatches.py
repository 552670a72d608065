"""Held-out microbatches at the coordinator: planned behind the others, in no sum, and not waited for long."""

from __future__ import annotations

import math

import pytest

from iota.objects import FrameKey
from iota.protocol.events import Drop, FrameReady, Reroute, StepClose
from iota.protocol.frames import Direction
from iota.protocol.heldout import LEAST_LOSSES, base_loss
from iota.protocol.messages import BadValue, FrameMissing
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from orchestrator.coordinator import Finding
from orchestrator.intake.grants import accesses
from tests.support.coordinators import LIMITS, Driven, frame
from tests.support.small_spec import small_spec

FIRST = 2
"""Number of the first held-out microbatch: two are trained on in each step."""


def a_run(replicas: int = 1, heldout: int = 2) -> RunSpec:
    return small_spec(layout={"cuts": [1, 2], "replicas": replicas}, schedule={"heldout": heldout})


def training(replicas: int = 1, heldout: int = 2) -> Driven:
    driven = Driven.training(a_run(replicas, heldout))
    for member in driven.state.miners():
        driven.news(member)
    return driven


def run_training(driven: Driven) -> None:
    for index in range(FIRST):
        driven.run_ops(0, index)


def test_they_are_in_the_plan_of_an_epochs_first_step_alone() -> None:
    driven = training(heldout=3)
    [first, second] = driven.state.current.steps
    assert [mb.heldout for mb in first.microbatches] == [False, False, True, True, True]
    assert [mb.heldout for mb in second.microbatches] == [False, False]
    assert [len(plan.routes) for plan in driven.coordinator.take_plans()] == [5, 2]


def test_their_loss_is_that_of_the_base_and_nothing_of_them_is_trained_or_counted() -> None:
    driven = training()
    run_training(driven)
    totals = driven.state.totals
    before = (totals.tokens, totals.settled)
    for index in (FIRST, FIRST + 1):
        driven.run_heldout(index)
    assert driven.state.current.closed_steps == 1
    assert (totals.tokens, totals.settled, totals.dropped) == (*before, 0)
    for member in driven.state.miners():
        closes = [e for e in driven.news(member) if isinstance(e, StepClose)]
        assert [e.counted for e in closes] == [((0, 0), (1, 0))]
    status = driven.coordinator.status()
    assert status["heldout"] == {"0": 2.0}
    assert status["heldout_error"] == {"0": None}
    assert status["heldout_tokens"] == {"0": 2 * driven.coordinator.spec.data.tokens}
    assert totals.losses == [2.0]


def test_the_step_waits_for_them_one_deadline_and_then_leaves_out_what_is_missing() -> None:
    driven = training()
    first, last = driven.state.miners()
    run_training(driven)
    driven.run_heldout(FIRST)
    assert driven.state.current.closed_steps == 0
    until = driven.coordinator.next_deadline()
    assert until is not None
    driven.wait(until - driven.now - 0.01)
    assert driven.state.current.closed_steps == 0
    driven.wait(0.02)
    assert driven.state.current.closed_steps == 1
    assert driven.state.totals.heldout[0].microbatches == 1
    assert [e.microbatch for e in driven.news(last) if isinstance(e, Drop)] == [FIRST + 1]
    assert not driven.state.incidents.named
    assert not any(member.withdrawn or member.stalled for member in (first, last))


def test_an_op_of_theirs_that_ends_gives_the_others_as_much_time_again() -> None:
    driven = training()
    run_training(driven)
    until = driven.coordinator.next_deadline()
    assert until is not None
    driven.wait((until - driven.now) / 2)
    driven.run_op(0, FIRST, 0, OpKind.FORWARD)
    later = driven.coordinator.next_deadline()
    assert later is not None
    assert later > until


def test_without_any_the_epoch_has_no_held_out_loss() -> None:
    driven = training()
    run_training(driven)
    driven.wait(100 * LIMITS.first_s)
    assert driven.state.current.closed_steps == 1
    assert driven.coordinator.status()["heldout"] == {}
    assert driven.state.current.heldout == {}


def test_those_of_a_lost_replica_go_to_another_as_new_attempts() -> None:
    driven = training(replicas=2, heldout=4)
    holder = driven.state.members[driven.state.current.steps[0].microbatches[FIRST].places[1].miner]
    other = next(m for m in driven.state.miners(1) if m is not holder)
    driven.run_op(0, FIRST, 0, OpKind.FORWARD)
    driven.lose(holder)
    news = driven.news(other)
    taken = [e for e in news if isinstance(e, Reroute) and e.microbatch >= FIRST]
    assert taken
    assert all(e.send_forward and e.attempt for e in taken)
    trained = [mb for mb in driven.state.current.steps[0].microbatches if not mb.heldout]
    planned = sum(place.had()[0][0] == holder.hotkey for mb in trained for place in mb.places)
    later = sum(e.step == 1 for e in news if isinstance(e, Reroute))
    assert holder.withdrawn == planned + later  # held-out ones lower nobody's timeliness
    assert FIRST in {e.notice.name.microbatch for e in news if isinstance(e, FrameReady)}
    run_training(driven)
    for index in range(FIRST, FIRST + 4):
        if index != FIRST:
            driven.run_op(0, index, 0, OpKind.FORWARD)
        driven.run_op(0, index, 1, OpKind.EVAL)
    assert driven.state.current.closed_steps == 1
    attempts = driven.state.current.heldout
    assert attempts.keys() == set(range(FIRST, FIRST + 4))
    assert attempts[FIRST][0] == 0 < attempts[FIRST][1]


def test_a_frame_that_was_stored_without_a_receipt_is_used_for_no_loss() -> None:
    driven = training(replicas=2)
    run_training(driven)
    sender = driven.state.members[driven.state.current.steps[0].microbatches[FIRST].places[0].miner]
    driven.say(sender, frames=[frame(0, 0, FIRST, 0, 0, Direction.FORWARD)])
    driven.run_op(0, FIRST, 1, OpKind.EVAL)
    driven.run_heldout(FIRST + 1)
    assert driven.state.current.closed_steps == 0
    driven.lose(sender)
    assert driven.state.current.closed_steps == 1
    assert driven.state.current.heldout.keys() == {FIRST + 1}


def test_a_lost_frame_is_made_again_and_its_first_receipt_counts_no_more() -> None:
    driven = training(replicas=2)
    run_training(driven)
    driven.run_op(0, FIRST, 0, OpKind.FORWARD)
    mb = driven.state.current.steps[0].microbatches[FIRST]
    receiver = driven.state.members[mb.places[1].miner]
    name = frame(0, 0, FIRST, 0, 0, Direction.FORWARD).name
    driven.say(receiver, reports=[FrameMissing(name=name, reason="gone")], looked={name: Finding.ABSENT})
    assert (mb.places[0].counted, mb.uncounted, mb.places[0].attempt > 0) == (False, 2, True)
    driven.run_heldout(FIRST)
    driven.run_heldout(FIRST + 1)
    assert driven.state.current.heldout[FIRST] == (1, 0)


def test_one_that_gives_nan_twice_is_left_out() -> None:
    driven = training(replicas=2)
    run_training(driven)
    driven.run_op(0, FIRST, 0, OpKind.FORWARD)
    mb = driven.state.current.steps[0].microbatches[FIRST]
    for _ in range(2):
        speaker = driven.state.members[mb.places[1].miner]
        word = BadValue(epoch=0, step=0, microbatch=FIRST, signature="ab" * 64)
        driven.say(speaker, reports=[word])
    driven.run_heldout(FIRST + 1)
    assert driven.state.current.closed_steps == 1
    assert driven.state.current.heldout.keys() == {FIRST + 1}
    assert driven.state.totals.dropped == 0


def test_no_gradient_of_theirs_is_taken_or_granted() -> None:
    driven = training()
    first, last = driven.state.miners()
    plan = next(e for _, e in driven.coordinator.events_after(last.hotkey, 0) if e.kind == "plan")
    granted = [access.key for access in accesses(driven.coordinator.spec, last, plan)]
    names = [frame(0, 0, index, 0, 1, Direction.BACKWARD).name for index in range(2 * FIRST)]
    keys = [str(FrameKey(driven.coordinator.spec.id, name)) for name in names]
    assert granted == keys[:FIRST]
    driven.run_op(0, FIRST, 0, OpKind.FORWARD)
    driven.news(first)
    driven.say(last, frames=[frame(0, 0, FIRST, 0, 1, Direction.BACKWARD)])
    assert driven.state.totals.unfit == 1
    assert driven.news(first) == []


# ---- the loss ---------------------------------------------------------------------------------------


def test_the_standard_error_is_that_of_the_mean_of_microbatches() -> None:
    losses = [3.0, 3.5] * 8
    found = base_loss(losses, 100)
    assert found is not None
    assert (found.loss, found.microbatches, found.tokens) == (3.25, 16, 1600)
    assert found.standard_error == pytest.approx(0.25 * math.sqrt(16 / 15) / 4)
    assert base_loss(losses[::-1], 100) == found


def test_few_microbatches_give_no_standard_error_and_none_no_loss() -> None:
    few = base_loss([2.0] * (LEAST_LOSSES - 1), 8)
    assert few is not None
    assert (few.loss, few.standard_error) == (2.0, None)
    assert base_loss([], 8) is None
