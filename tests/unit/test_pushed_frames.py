"""What a replica thinks of frames that are pushed to it, and what it does with those that it takes."""

from __future__ import annotations

import pytest

from iota.objects import planned_frames
from iota.protocol.events import Admit, Drop, Event
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import BadValue, FrameMissing
from iota.protocol.receipts import OpKind
from iota.spec import Pipeline
from iota.wire.expectation import Expectation
from miner.core.core import ReplicaCore
from miner.core.effects import (
    DenyFrame,
    FetchFrame,
    FindFrames,
    Say,
)
from miner.core.facts import (
    BaseHeld,
    FrameArrived,
    OpBad,
    OpDone,
    Pushed,
    StateLoaded,
)
from miner.core.inputs import DENIED
from miner.core.schedule import Op
from tests.support.frames import frame_name
from tests.support.plans import share_of, whole_plan
from tests.support.pushed import (
    activations,
    digest_of,
    gradient,
    header_of,
    moved,
    op_of,
    planned,
    push,
    ready,
)
from tests.support.replica_cores import (
    BASE,
    FIRST,
    LAST,
    ME,
    OTHER,
    SPEC,
    close,
    ended,
    hear,
    made,
    new_core,
    ops,
    plan,
    training,
)
from tests.support.virtual_runs import tiny_spec

EXPECTED, EARLY, OVER, WRONG = Expectation


# ---- what is expected -----------------------------------------------------------------------------


def test_what_the_plan_names_is_expected_once_it_is_heard_and_until_it_is_here() -> None:
    core, names = training(), (activations(), gradient())
    headers = [header_of(names[0]), header_of(names[1], LAST)]
    assert [core.expects(header) for header in headers] == [EARLY, EARLY]
    hear(core, plan())
    assert [core.expects(header) for header in headers] == [EXPECTED, EXPECTED]
    for name in names:
        push(core, name)
    assert [core.expects(header) for header in headers] == [OVER, OVER]


def test_before_its_epoch_a_frame_is_early_and_after_it_over() -> None:
    core = new_core()
    assert core.expects(header_of(activations())) is EARLY
    core.take(BaseHeld(1, BASE))
    assert core.expects(header_of(activations())) is OVER
    assert core.expects(header_of(frame_name(epoch=1))) is EARLY
    assert core.earliest_step() == (1, 0)


@pytest.mark.parametrize(
    ("name", "sender"),
    [
        (activations(), OTHER),
        (activations(), ME),
        (gradient(), FIRST),
        (frame_name(stage=1), FIRST),
        (frame_name(direction=Direction.BACKWARD), FIRST),
        (frame_name(step=1), FIRST),
        (frame_name(microbatch=3), FIRST),
        (frame_name(epoch=2), FIRST),
    ],
)
def test_other_senders_and_frames_of_no_use_are_wrong(name: FrameName, sender: str) -> None:
    assert planned().expects(header_of(name, sender)) is WRONG


def test_a_frame_of_another_run_or_for_another_receiver_is_wrong() -> None:
    core, header = planned(), header_of(activations())
    assert core.expects(header.model_copy(update={"run": "ab" * 32})) is WRONG
    assert core.expects(header_of(activations(), receiver=OTHER)) is WRONG


def test_the_gradient_of_a_heldout_microbatch_is_wrong_and_its_activations_are_expected() -> None:
    spec = tiny_spec(
        stages=3, replicas=1, epochs=1, steps=1, microbatches=2, pipeline=Pipeline.SYNC, credit=2, heldout=1
    )
    core = ReplicaCore(spec, 1, ME, reads_tokens=False)
    core.take(BaseHeld(0, BASE))
    hear(core, Admit(epoch=0, step=0, carries=True))
    core.take(StateLoaded(0, 0))
    hear(core, share_of(whole_plan((FIRST, ME, LAST), 3), ME))
    assert core.expects(header_of(activations(2), spec=spec)) is EXPECTED
    assert core.expects(header_of(gradient(2), LAST, spec=spec)) is WRONG


@pytest.mark.parametrize("event", [Drop(epoch=0, step=0, microbatch=0), moved(1, OTHER, 1), close(1)])
def test_what_no_op_here_needs_any_more_is_over(event: Event) -> None:
    core = planned()
    hear(core, event)
    assert core.expects(header_of(activations())) is OVER


def test_once_its_step_is_applied_a_frame_is_over() -> None:
    core = planned()
    step = op_of(hear(core, close()))
    ended(core, OpDone(step, None))
    assert core.expects(header_of(activations())) is OVER
    assert core.earliest_step() == (0, 1)


def test_a_frame_of_a_newer_attempt_waits_for_its_re_route_and_then_counts_alone() -> None:
    core, again = planned(), header_of(activations(attempt=1), OTHER)
    assert core.expects(again) is EARLY
    hear(core, moved(0, OTHER, 1))
    assert core.expects(again) is EXPECTED
    assert core.expects(header_of(activations(attempt=1), FIRST)) is WRONG
    assert core.expects(header_of(activations())) is OVER, "the attempt was taken from its sender"


def test_where_the_next_stage_has_the_activations_they_still_come_from_who_made_them() -> None:
    core = planned()
    hear(core, moved(0, OTHER, 1, send_forward=False))
    assert core.expects(header_of(activations())) is EXPECTED
    assert core.expects(header_of(activations(attempt=1), OTHER)) is OVER


def test_a_re_routed_microbatchs_frames_may_name_who_had_it_before() -> None:
    core = training()
    hear(core, moved(1, ME, 1))
    assert core.expects(header_of(activations(), receiver=OTHER)) is EXPECTED
    assert core.expects(header_of(gradient(), LAST)) is EXPECTED


def test_attempts_that_a_second_re_route_does_not_tell_are_not_guessed() -> None:
    core = training()
    hear(core, moved(1, ME, 2))
    for attempt in (0, 1):
        assert core.expects(header_of(activations(attempt=attempt))) is WRONG
    assert core.expects(header_of(activations(attempt=3))) is EARLY
    assert isinstance(hear(core, ready(activations(attempt=1)))[0], FetchFrame)


def test_a_step_makes_room_on_the_disk_for_what_its_plan_and_its_re_routes_name_alone() -> None:
    """Whatever peers push: so a disk that is planned for the frames of an epoch holds them."""
    core = planned()
    names = [make(n, attempt) for make in (activations, gradient) for n in range(3) for attempt in range(4)]

    def taken() -> int:
        count = 0
        for name, sender in [(name, sender) for name in names for sender in (FIRST, LAST, OTHER, ME)]:
            if core.expects(header_of(name, sender)) is EXPECTED:
                push(core, name, sender)
                count += 1
        return count

    received = taken()
    assert (received, taken()) == (planned_frames(SPEC) // 2, 0)
    hear(core, moved(0, OTHER, 1), moved(2, OTHER, 2))
    assert (taken(), taken()) == (2, 0)


# ---- what becomes an input --------------------------------------------------------------------------


def test_a_pushed_frame_starts_its_op_and_is_not_fetched_when_it_is_announced() -> None:
    core = planned()
    assert ops(push(core, activations())) == [(OpKind.FORWARD, 0)]
    assert hear(core, ready(activations())) == []
    assert hear(core, ready(activations(), content=1)) == [], "the first one stands"


def test_the_first_frame_stays_the_input_and_what_a_later_attempt_sends_is_kept_beside_it() -> None:
    core = planned()
    first, second = (
        FrameArrived(activations(attempt=n), Pushed(sender, digest_of(activations(attempt=n))))
        for n, sender in enumerate((FIRST, OTHER))
    )
    assert core.reads(first)
    core.take(first)
    hear(core, moved(0, OTHER, 1))
    assert core.expects(header_of(second.name, OTHER)) is EXPECTED, "its sender's delivery counts"
    assert not core.reads(second)
    assert not core.reads(first), "it is the input already"


def test_a_replica_that_has_a_microbatch_anew_uses_what_it_acknowledged_of_whichever_attempt() -> None:
    core = planned()
    push(core, activations())
    hear(core, moved(0, FIRST, 1, send_forward=False))
    hear(core, moved(0, FIRST, 2))
    [sought] = [e for e in hear(core, moved(1, ME, 3)) if isinstance(e, FindFrames)]
    assert activations() in [name for name, _ in sought.frames]


def test_what_is_here_is_fetched_again_where_an_op_of_a_new_attempt_does_not_read_it() -> None:
    core, announced = planned(), ready(activations())
    hear(core, announced)
    core.take(FrameArrived(activations()))
    assert hear(core, announced) == []
    core.training.inputs.routes[0, 0].inputs.clear()  # as after a re-route whose neighbours are not known
    assert hear(core, announced) == [FetchFrame(announced.notice, FIRST)]


def test_a_frame_that_was_on_its_way_when_its_sender_was_replaced_is_used() -> None:
    core = planned()
    hear(core, moved(0, OTHER, 1))
    assert ops(push(core, activations())) == [(OpKind.FORWARD, 0)]


@pytest.mark.parametrize(
    ("name", "sender"), [(activations(), OTHER), (activations(attempt=1), FIRST), (gradient(), FIRST)]
)
def test_what_its_sender_was_not_given_never_becomes_an_input(name: FrameName, sender: str) -> None:
    core = planned()
    assert not core.reads(FrameArrived(name, Pushed(sender, digest_of(name))))
    assert push(core, name, sender) == []


# ---- NaN and Inf ------------------------------------------------------------------------------------


def _missing(name: FrameName) -> Say:
    return Say(reports=(FrameMissing(name=name, reason=DENIED),))


def test_a_bad_value_of_pushed_activations_has_them_stored_and_the_op_repeated() -> None:
    core, name = planned(), activations()
    op = op_of(push(core, name))
    assert ended(core, OpBad(op)) == [DenyFrame(name), _missing(name)]
    assert core.expects(header_of(name)) is WRONG, "it must come by the store"
    assert ops(push(core, name, content=1)) == []
    [fetch] = hear(core, ready(name, content=1))
    assert fetch == FetchFrame(ready(name, content=1).notice, FIRST)
    assert op_of(core.take(FrameArrived(name))) == op
    assert ended(core, OpBad(op)) == [Say(reports=(BadValue(epoch=0, step=0, microbatch=0),))]


def test_a_bad_value_of_what_the_store_has_too_is_said_at_once() -> None:
    core, name = planned(), activations()
    op = op_of(push(core, name))
    hear(core, ready(name))
    assert ended(core, OpBad(op)) == [Say(reports=(BadValue(epoch=0, step=0, microbatch=0),))]


def test_a_sender_that_stored_something_else_than_it_pushed_is_taken_at_its_stored_word() -> None:
    core, name = planned(), activations()
    op = op_of(push(core, name))
    hear(core, ready(name, content=1))
    assert ended(core, OpBad(op)) == [DenyFrame(name), FetchFrame(ready(name, content=1).notice, FIRST)]
    assert op_of(core.take(FrameArrived(name))) == op


def test_a_good_frame_of_another_attempt_that_is_here_takes_the_place_of_a_bad_one() -> None:
    core = planned()
    op = op_of(push(core, activations()))
    hear(core, moved(0, OTHER, 1))
    push(core, activations(attempt=1), OTHER)
    again = activations(attempt=1)
    assert ended(core, OpBad(op)) == [DenyFrame(activations()), FindFrames(((again, OTHER),))]
    assert ops(push(core, again, OTHER)) == [(OpKind.FORWARD, 0)]


def _backward(core: ReplicaCore) -> Op:
    """Microbatch 0 has gone forward on pushed activations, and its pushed gradient is here."""
    op = op_of(push(core, activations()))
    ended(core, OpDone(op, made(core)))
    return op_of(push(core, gradient()))


def test_a_bad_backward_has_both_inputs_stored_and_computes_its_forward_again() -> None:
    core = planned()
    op = _backward(core)
    effects = ended(core, OpBad(op))
    # The activations stand: the FORWARD's receipt names them.
    assert effects == [_missing(activations()), DenyFrame(gradient()), _missing(gradient())]
    hear(core, ready(gradient()), ready(activations()))
    assert core.take(FrameArrived(gradient())) == []
    assert not core.reads(FrameArrived(activations())), "the input is the one that is named"
    again = op_of(core.take(FrameArrived(activations())))
    assert (again.kind, again.key, again.send_forward) == (OpKind.BACKWARD, op.key, False)
    assert ended(core, OpBad(again)) == [Say(reports=(BadValue(epoch=0, step=0, microbatch=0),))]


def test_a_bad_backward_waits_for_what_the_orchestrator_knows_in_place_of_its_receipted_input() -> None:
    """The activations' sender was replaced before it could say that they are here."""
    core, second = planned(), activations(attempt=1)
    op = op_of(push(core, activations()))
    ended(core, OpDone(op, made(core)))
    hear(core, moved(0, OTHER, 1))
    push(core, second, OTHER)
    hear(core, ready(gradient()))
    op = op_of(core.take(FrameArrived(gradient())))
    assert ended(core, OpBad(op)) == [_missing(second)]
    hear(core, ready(second, OTHER))
    assert op_of(core.take(FrameArrived(second))).kind is OpKind.BACKWARD


def test_a_receipted_input_waits_no_longer_for_a_sender_that_was_replaced() -> None:
    core = planned()
    op = _backward(core)
    ended(core, OpBad(op))
    hear(core, ready(gradient()))
    core.take(FrameArrived(gradient()))
    again = op_of(hear(core, moved(0, OTHER, 1)))
    assert again.key == op.key
    assert ended(core, OpBad(again)) == [_missing(activations(attempt=1))], "the orchestrator reads this one"


def test_inputs_that_a_bad_op_has_not_read_are_stored_too() -> None:
    """The orchestrator judges a word by all that went to its speaker."""
    core = planned()
    push(core, gradient())
    hear(core, ready(activations()))
    op = op_of(core.take(FrameArrived(activations())))
    effects = ended(core, OpBad(op))
    assert effects[:2] == [DenyFrame(gradient()), _missing(gradient())]
    assert op_of(effects) == op
    assert ended(core, OpBad(op)) == [Say(reports=(BadValue(epoch=0, step=0, microbatch=0),))]


def test_a_backward_that_is_good_with_another_gradient_counts() -> None:
    core = planned()
    hear(core, ready(activations()))
    core.take(FrameArrived(activations()))
    assert core.training is not None
    assert core.training.launching is not None
    ended(core, OpDone(core.training.launching.op, made(core)))
    op = op_of(push(core, gradient()))
    assert ended(core, OpBad(op)) == [DenyFrame(gradient()), _missing(gradient())]
    hear(core, moved(2, OTHER, 1))
    again = op_of(push(core, gradient(attempt=1), OTHER))
    ended(core, OpDone(again, None))
    assert ops(hear(core, close(0))) == [(OpKind.STEP, 0)]
