"""After a restart a replica finds the frames that were pushed to it on its disk."""

from __future__ import annotations

import pytest

from iota.protocol.events import Drop, Event
from iota.protocol.receipts import OpKind
from iota.wire.expectation import Expectation
from miner.core.effects import (
    FetchFrame,
    FindFrames,
    LoseState,
)
from miner.core.facts import (
    FrameLost,
    FramesSought,
    OpDone,
    OpLaunched,
)
from tests.support.pushed import (
    activations,
    gradient,
    header_of,
    moved,
    op_of,
    planned,
    push,
    ready,
)
from tests.support.replica_cores import (
    FIRST,
    LAST,
    OTHER,
    close,
    ended,
    hear,
    made,
    ops,
    plan,
    resumed,
    training,
)

EXPECTED, OVER = Expectation.EXPECTED, Expectation.OVER


def test_a_new_process_looks_on_its_disk_for_what_its_plan_names() -> None:
    core = training()
    assert hear(core, plan()) == [], "there is nothing on a new disk"
    [find] = hear(resumed(), plan())
    assert isinstance(find, FindFrames)
    both = [((activations(n), FIRST), (gradient(n), LAST)) for n in range(3)]
    assert find.frames == tuple(each for pair in both for each in pair)


def test_what_a_new_process_finds_may_be_pushed_once_more_to_be_acknowledged_again() -> None:
    core, name = planned(restarted=True), activations()
    push(core, name)
    assert core.expects(header_of(name)) is EXPECTED
    core.take(FramesSought((name,)))
    assert core.expects(header_of(name)) is EXPECTED
    push(core, name)
    assert core.expects(header_of(name)) is OVER


def test_what_is_announced_while_it_is_looked_for_is_fetched_if_it_is_not_there() -> None:
    core = planned(restarted=True)
    names = tuple(name for n in range(3) for name in (activations(n), gradient(n)))
    assert hear(core, *(ready(name) for name in names)) == []
    for name in names[:2]:
        push(core, name)
    effects = core.take(FramesSought(names))
    assert [e.notice.name for e in effects if isinstance(e, FetchFrame)] == list(names[2:])


def test_a_replica_repeats_a_closed_step_from_its_disk() -> None:
    core = planned(restarted=True)
    hear(core, close(0))
    op = op_of(push(core, activations()))
    push(core, gradient())
    assert core.take(FramesSought((activations(), gradient()))) == []
    again = op_of(ended(core, OpDone(op, made(core))))
    assert again.kind is OpKind.BACKWARD
    assert ops(ended(core, OpDone(again, None))) == [(OpKind.STEP, 0)]


@pytest.mark.parametrize("event", [Drop(epoch=0, step=0, microbatch=0), moved(1, OTHER, 1)])
def test_what_was_done_before_a_microbatch_was_lost_is_repeated_if_it_counts(
    event: Event,
) -> None:
    core = planned(restarted=True)
    hear(core, event)
    assert core.expects(header_of(activations())) is OVER
    assert ops(push(core, activations())) == []
    push(core, gradient())
    assert ops(hear(core, close(0))) == [(OpKind.FORWARD, 0)]


def test_a_closed_step_that_cannot_be_repeated_ends_the_life() -> None:
    core = planned(restarted=True)
    hear(core, close(0))
    push(core, activations())
    [lost] = core.take(FramesSought((activations(), gradient())))
    assert isinstance(lost, LoseState)


def test_the_life_goes_on_while_a_fetch_may_bring_what_is_lacking() -> None:
    core = planned(restarted=True)
    push(core, activations())
    hear(core, ready(gradient()), close(0))
    assert isinstance(core.take(FramesSought((activations(), gradient())))[0], FetchFrame)
    effects = core.take(FrameLost(gradient(), "gone"))
    assert isinstance(effects[-1], LoseState)


def test_a_replica_that_never_stopped_is_not_ended_by_a_close() -> None:
    core = planned()
    assert hear(core, close(0)) == []


def test_a_repeated_op_is_launched_on_what_was_found() -> None:
    core = planned(restarted=True)
    op = op_of(push(core, activations()))
    core.take(OpLaunched(op))
    assert op.kind is OpKind.FORWARD
