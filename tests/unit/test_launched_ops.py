"""Which ops begin before those before them are on disk, and what their outcomes change."""

from __future__ import annotations

import pytest

from iota.protocol.events import (
    Admit,
    LoadBase,
)
from iota.protocol.frames import Direction
from iota.protocol.receipts import OpKind
from iota.spec import Pipeline
from miner.core.core import ReplicaCore
from miner.core.effects import (
    Say,
    SendFrame,
)
from miner.core.facts import (
    BaseHeld,
    FrameArrived,
    OpBad,
    OpDone,
    OpLaunched,
    StateLoaded,
)
from tests.support.frames import frame_name
from tests.support.plans import share_of, whole_plan
from tests.support.replica_cores import (
    BASE,
    FIRST,
    LAST,
    ME,
    NEXT,
    OTHER,
    close,
    hear,
    launched,
    made,
    ops,
    plan,
    training,
)
from tests.support.virtual_runs import tiny_spec


def test_an_op_begins_while_the_one_before_is_recorded_and_a_third_waits() -> None:
    core = training()
    hear(core, plan())
    for index in (2, 1):
        assert core.take(FrameArrived(frame_name(0, index))) == []
    both = [launched(core, core.take(FrameArrived(frame_name(0, 0))))]
    both.append(launched(core, both[0][1]))
    assert both[1][1] == [], "two are not on disk"
    assert not core.idle
    effects = core.take(OpDone(both[0][0], made(core, 0)))
    assert effects[0] == SendFrame(made(core, 0), LAST)
    assert ops(effects) == [(OpKind.FORWARD, 2)]


def test_a_backward_waits_until_its_forward_is_on_disk() -> None:
    """Else its gradient might be in the sum of a microbatch that is dropped."""
    core = training()
    hear(core, plan())
    effects = core.take(FrameArrived(frame_name(0, 0)))
    core.take(FrameArrived(frame_name(0, 0, direction=Direction.BACKWARD)))
    op, effects = launched(core, effects)
    assert effects == []
    assert ops(core.take(OpDone(op, made(core)))) == [(OpKind.BACKWARD, 0)]


@pytest.mark.parametrize("bad", [False, True])
def test_a_step_waits_until_all_that_it_counts_is_on_disk(bad: bool) -> None:
    core = training(stage=2)
    hear(core, share_of(whole_plan((FIRST, OTHER, ME), 3), ME))
    op, _ = launched(core, core.take(FrameArrived(frame_name(0, 0, stage=1))))
    assert hear(core, close(0)) == []
    effects = core.take(OpBad(op) if bad else OpDone(op, None))
    assert ops(effects) == ([] if bad else [(OpKind.STEP, 0)])


def test_the_next_steps_ops_begin_before_a_steps_receipt_is_on_disk() -> None:
    spec = tiny_spec(
        stages=3, replicas=1, epochs=1, steps=2, microbatches=3, pipeline=Pipeline.SYNC, credit=3
    )
    core = ReplicaCore(spec, 1, ME, reads_tokens=False)
    core.take(BaseHeld(0, BASE))
    hear(core, Admit(epoch=0, step=0, carries=True))
    core.take(StateLoaded(0, 0))
    hear(core, share_of(whole_plan((FIRST, ME, LAST), 3, step=1), ME))
    core.take(FrameArrived(frame_name(1, 0)))
    effects = hear(core, close())
    step, effects = launched(core, effects)
    assert (step.kind, ops(effects)) == (OpKind.STEP, [(OpKind.FORWARD, 0)])
    assert core.progress[1] == 0, "it is not applied yet"
    core.take(OpDone(step, None))
    assert core.progress[1] == 1


def test_the_outcome_of_an_op_of_a_training_that_was_replaced_changes_nothing() -> None:
    core = training()
    hear(core, plan())
    op, _ = launched(core, core.take(FrameArrived(frame_name())))
    hear(
        core,
        LoadBase(epoch=1, digest=NEXT),
    )
    core.take(BaseHeld(0, BASE))
    hear(core, Admit(epoch=0, step=0, carries=True))
    core.take(StateLoaded(0, 0))
    assert core.take(OpLaunched(op)) == []
    assert core.take(OpDone(op, made(core))) == [Say(receipts=True)]
    assert core.take(OpBad(op)) == []
