"""What a replica of a run with overlap does about what it hears and what it has done."""

from __future__ import annotations

from iota.protocol.events import Admit, AuditsClosed, MergeAssign, MergeReady, RunEnd
from iota.protocol.messages import Ready
from iota.protocol.receipts import OpKind
from iota.spec import Overlap, Pipeline
from miner.core.core import ReplicaCore
from miner.core.effects import (
    ApplyMerge,
    Effect,
    ForgetEpoch,
    LoadState,
    MergePart,
    Say,
    StoreDelta,
    WriteCommit,
)
from miner.core.facts import BaseHeld, Committed, DutyEnded, OpDone, StateLoaded
from tests.support.replica_cores import BASE, NEXT, close, ended, hear, new_core, plan
from tests.support.virtual_runs import tiny_spec

SPEC = tiny_spec(
    stages=3,
    replicas=1,
    epochs=4,
    steps=1,
    microbatches=3,
    pipeline=Pipeline.SYNC,
    credit=3,
    overlap=Overlap.ONE_EPOCH,
)
ADMIT = Admit(epoch=1, step=0, carries=True)
ANEW = Admit(epoch=1, step=0, carries=False)
MERGED = MergeReady(epoch=0, stage=1, parts=())


def ready(epoch: int) -> Say:
    return Say(reports=(Ready(epoch=epoch, digest=BASE),))


def in_training() -> ReplicaCore:
    """In epoch 0."""
    core = new_core(spec=SPEC)
    core.take(BaseHeld(0, BASE))
    assert hear(core, Admit(epoch=0, step=0, carries=False)) == [LoadState(0, 0, carries=False)]
    assert core.take(StateLoaded(0, 0)) == [WriteCommit(0, 0)]
    core.take(Committed(0, 0))
    return core


def finish(core: ReplicaCore) -> list[Effect]:
    """The only step of epoch 0, without work for this replica, and its last COMMIT."""
    hear(core, plan(), close())
    assert core.training is not None
    running = core.training.launching
    assert running is not None
    assert running.op.kind is OpKind.STEP
    ended(core, OpDone(running.op, None))
    return core.take(Committed(0, 1))


def trained() -> ReplicaCore:
    """It has trained epoch 0, and stored its pseudo-gradient."""
    core = in_training()
    assert finish(core) == [Say(receipts=True), StoreDelta(0)]
    core.take(DutyEnded(StoreDelta(0), None))
    return core


def next_epoch() -> ReplicaCore:
    """In epoch 1, with its own start, while epoch 0 is merged."""
    core = trained()
    assert hear(core, ADMIT) == [LoadState(1, 0, carries=True)]
    assert not core.listening
    assert core.take(StateLoaded(1, 0)) == [WriteCommit(1, 0)], "the pseudo-gradient was given out already"
    core.take(Committed(1, 0))
    return core


def test_the_next_epoch_begins_before_the_merge_of_the_one_before_which_is_applied_behind_it() -> None:
    core = next_epoch()
    assert hear(core, MERGED) == [ApplyMerge(0, (), trained=False)]
    assert core.listening
    assert core.state == "epoch 1 step 0"
    assert hear(core, MERGED) == [], "it is being applied"
    assert core.take(BaseHeld(1, BASE)) == [ready(1)]
    assert core.state == "epoch 1 step 0"
    assert hear(core, MERGED) == [ready(1)]


def test_a_base_that_is_made_behind_a_load_does_not_let_events_pass() -> None:
    core = trained()
    hear(core, MERGED, ADMIT)
    assert not core.listening
    core.take(BaseHeld(1, BASE))
    assert not core.listening
    core.take(StateLoaded(1, 0))
    assert core.listening


def test_merges_are_applied_one_after_another() -> None:
    core = next_epoch()
    second = MERGED.model_copy(update={"epoch": 1})
    assert hear(core, MERGED, second) == [ApplyMerge(0, (), trained=False)]
    assert core.take(BaseHeld(1, BASE)) == [ready(1), ApplyMerge(1, (), trained=False)]
    assert core.take(BaseHeld(2, BASE)) == [ready(2)]


def test_an_admission_that_a_restart_hears_again_waits_for_the_end_of_the_epoch_before() -> None:
    core = in_training()
    assert hear(core, ADMIT) == []
    assert not core.listening
    core = in_training()
    hear(core, plan(), close(), ADMIT)
    assert core.training is not None
    assert core.training.launching is not None
    ended(core, OpDone(core.training.launching.op, None))
    assert core.take(Committed(0, 1)) == [Say(receipts=True), StoreDelta(0), LoadState(1, 0, carries=True)]


def test_a_restart_in_an_epoch_stores_the_pseudo_gradient_that_is_not_merged_yet() -> None:
    for merged, again in ((0, [StoreDelta(0)]), (1, [])):
        core = new_core(spec=SPEC)
        core.take(BaseHeld(merged, BASE))
        assert hear(core, ADMIT) == [LoadState(1, 0, carries=True)]
        assert core.take(StateLoaded(1, 0)) == [WriteCommit(1, 0), *again]


def test_a_second_admission_to_an_epoch_drops_what_was_trained() -> None:
    core = next_epoch()
    assert hear(core, ANEW) == [LoadState(1, 0, carries=False)]
    assert core.training is None
    assert core.take(StateLoaded(1, 0)) == [WriteCommit(1, 0)]


def test_an_admission_needs_the_anchor_or_a_newer_base() -> None:
    taken = []
    for held in range(5):
        core = new_core(spec=SPEC)
        core.take(BaseHeld(held, BASE))
        taken.append(hear(core, ANEW.model_copy(update={"epoch": 2})) != [])
    assert taken == [False, True, True, True, False]


def test_a_part_is_merged_until_the_second_epoch_after_its_own_begins() -> None:
    core = next_epoch()
    assign = MergeAssign(epoch=0, stage=2, part=0, contributions=())
    assert hear(core, assign) == [MergePart(assign)]
    assert core.wants(MergePart(assign))
    assert core.wants(StoreDelta(0))
    hear(core, MERGED)
    assert not core.wants(StoreDelta(0))
    core.take(BaseHeld(1, NEXT))
    hear(core, Admit(epoch=2, step=0, carries=False))
    assert not core.wants(MergePart(assign))


def test_what_a_restart_may_need_outlasts_the_audits() -> None:
    core = next_epoch()
    core.take(BaseHeld(1, BASE))
    assert hear(core, AuditsClosed(epoch=0)) == []
    assert hear(core, Admit(epoch=2, step=0, carries=False)) == [LoadState(2, 0, carries=False)]
    core.take(StateLoaded(2, 0))
    core.take(Committed(2, 0))
    core.take(BaseHeld(2, BASE))
    anew = Admit(epoch=3, step=0, carries=False)
    assert hear(core, anew) == [LoadState(3, 0, carries=False), ForgetEpoch(0)]
    core.take(StateLoaded(3, 0))
    hear(core, AuditsClosed(epoch=2))
    assert hear(core, RunEnd(reason="done")) == [ForgetEpoch(2)]


def test_the_status_says_what_a_replica_waits_for() -> None:
    core = trained()
    assert core.state == "waiting for epoch 1"
    core = in_training()
    core.take(BaseHeld(0, BASE))
    hear(core, Admit(epoch=1, step=1, carries=False))
    core.take(StateLoaded(1, 1))
    assert core.state == "merging epoch 0"
    core.take(Committed(1, 1))
    core.take(BaseHeld(1, BASE))
    assert core.state == "waiting for epoch 2"
