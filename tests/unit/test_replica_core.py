"""What a replica does about what it hears and what it has done, decision by decision."""

from __future__ import annotations

import pytest

from iota.objects import FrameKey
from iota.protocol.events import (
    Admit,
    AuditsClosed,
    Drop,
    Event,
    FrameReady,
    LoadBase,
    MergeReady,
    RunEnd,
)
from iota.protocol.frames import Direction, StoredObject
from iota.protocol.messages import BadValue, Delta, FrameMissing, Ready
from iota.protocol.receipts import OpKind
from miner.core.effects import (
    ApplyMerge,
    FetchBase,
    FetchFrame,
    ForgetEpoch,
    ForgetMicrobatch,
    ReadTokens,
    RunOp,
    Say,
    SendAgain,
    SendFrame,
    StoreDelta,
    WriteCommit,
)
from miner.core.facts import (
    BaseHeld,
    Committed,
    DutyEnded,
    FrameArrived,
    FrameLost,
    FrameNotStored,
    FrameStored,
    ObjectsMissing,
    OpBad,
    OpDone,
    OpLaunched,
    StateLoaded,
    TokensRead,
)
from tests.support.frames import frame_name, outgoing
from tests.support.replica_cores import (
    BASE,
    FIRST,
    LAST,
    ME,
    NEXT,
    OTHER,
    SPEC,
    close,
    ended,
    forwarded,
    hear,
    made,
    new_core,
    ops,
    plan,
    reroute,
    training,
)

# ---- bases ---------------------------------------------------------------------------------------


def test_a_base_on_disk_is_told_at_once() -> None:
    assert new_core().take(BaseHeld(3, BASE)) == [Say(reports=(Ready(epoch=3, digest=BASE),))]


def test_a_base_that_is_held_is_not_fetched_again() -> None:
    core = new_core()
    core.take(BaseHeld(1, BASE))
    ready = [Say(reports=(Ready(epoch=1, digest=BASE),))]
    assert hear(core, LoadBase(epoch=1, digest=BASE)) == ready
    assert hear(core, LoadBase(epoch=0, digest=None)) == ready


def test_another_base_is_fetched_and_events_wait_for_it() -> None:
    core = new_core()
    core.take(BaseHeld(1, BASE))
    assert hear(core, LoadBase(epoch=1, digest=NEXT)) == [FetchBase(1, NEXT, ())]
    assert not core.listening
    core.take(BaseHeld(1, NEXT))
    assert core.listening


def test_an_admission_to_an_epoch_whose_base_is_not_held_changes_nothing() -> None:
    core = new_core()
    assert hear(core, Admit(epoch=0, step=0, carries=True)) == []
    core.take(BaseHeld(1, BASE))
    assert hear(core, Admit(epoch=0, step=0, carries=True)) == []
    assert core.listening


def test_a_merge_waits_for_the_last_commit_and_follows_the_pseudo_gradient() -> None:
    core = training()
    hear(core, plan(), close())
    assert core.training is not None
    running = core.training.launching
    assert running is not None
    assert running.op.kind is OpKind.STEP
    assert hear(core, MergeReady(epoch=0, stage=1, parts=())) == []
    assert not core.listening
    assert ended(core, OpDone(running.op, None)) == [Say(receipts=True), WriteCommit(0, 1)]
    assert core.take(Committed(0, 0)) == [Say(receipts=True)]
    effects = core.take(Committed(0, 1))
    assert effects == [Say(receipts=True), StoreDelta(0), ApplyMerge(0, (), trained=True)]
    assert core.take(BaseHeld(1, NEXT)) == [Say(reports=(Ready(epoch=1, digest=NEXT),))]
    assert core.listening
    assert core.training is None


def test_a_replica_that_did_not_train_applies_the_merge_at_once() -> None:
    core = new_core()
    core.take(BaseHeld(0, BASE))
    assert hear(core, MergeReady(epoch=0, stage=1, parts=())) == [ApplyMerge(0, (), trained=False)]


def test_a_merge_that_is_in_the_base_already_is_answered_with_that_base() -> None:
    core = new_core()
    core.take(BaseHeld(1, BASE))
    assert hear(core, MergeReady(epoch=0, stage=1, parts=())) == [Say(reports=(Ready(epoch=1, digest=BASE),))]
    assert hear(core, MergeReady(epoch=2, stage=1, parts=())) == []


def test_a_replica_that_is_admitted_after_the_last_step_gives_a_pseudo_gradient_too() -> None:
    core = new_core()
    core.take(BaseHeld(0, BASE))
    hear(core, Admit(epoch=0, step=SPEC.schedule.steps, carries=True))
    assert core.take(StateLoaded(0, SPEC.schedule.steps)) == [WriteCommit(0, SPEC.schedule.steps)]
    assert core.take(Committed(0, SPEC.schedule.steps)) == [Say(receipts=True), StoreDelta(0)]


def test_a_merge_that_comes_between_the_last_step_and_its_commit_waits() -> None:
    core = training()
    hear(core, plan(), close())
    assert core.training is not None
    assert core.training.launching is not None
    ended(core, OpDone(core.training.launching.op, None))
    assert hear(core, MergeReady(epoch=0, stage=1, parts=())) == []
    assert core.take(Committed(0, 1))[1:] == [StoreDelta(0), ApplyMerge(0, (), trained=True)]


def test_a_commit_of_a_replaced_epoch_settles_no_other() -> None:
    core = training()
    hear(core, LoadBase(epoch=1, digest=NEXT))
    core.take(BaseHeld(1, NEXT))
    hear(core, Admit(epoch=1, step=SPEC.schedule.steps, carries=True))
    core.take(StateLoaded(1, SPEC.schedule.steps))
    assert core.take(Committed(0, SPEC.schedule.steps)) == [Say(receipts=True)]


def test_a_pseudo_gradient_goes_out_with_all_receipts_before_it() -> None:
    report = Delta(epoch=0, parts=(StoredObject(key="a", digest=BASE, size=1),))
    assert new_core().take(DutyEnded(StoreDelta(0), report)) == [Say(reports=(report,), receipts=True)]


# ---- ops and tokens ------------------------------------------------------------------------------


def test_tokens_are_asked_for_with_the_plan_and_an_op_waits_for_its_own() -> None:
    core = training(stage=0, reads_tokens=True)
    assert hear(core, plan(0)) == [ReadTokens(0, 0, index) for index in range(3)]
    assert core.take(TokensRead(0, 0, 1)) == []
    assert ops(core.take(TokensRead(0, 0, 0))) == [(OpKind.FORWARD, 0)]
    assert core.take(TokensRead(0, 0, 2)) == [], "one op at a time"


def test_tokens_of_work_that_comes_with_a_close_alone_are_read_too() -> None:
    core = training(stage=0, reads_tokens=True)
    assert hear(core, close(2)) == [ReadTokens(0, 0, 2)]
    assert ops(core.take(TokensRead(0, 0, 2))) == [(OpKind.FORWARD, 2)]


def test_a_stage_that_reads_no_tokens_asks_for_none() -> None:
    core = training()
    assert hear(core, plan()) == []
    assert ops(core.take(FrameArrived(frame_name()))) == [(OpKind.FORWARD, 0)]


def test_a_bad_value_is_reported_and_its_microbatch_is_dropped() -> None:
    core = training()
    hear(core, plan())
    core.take(FrameArrived(frame_name(0, 1)))
    effects = core.take(FrameArrived(frame_name(0, 0)))
    op = next(e.op for e in effects if isinstance(e, RunOp))
    assert ops(core.take(OpLaunched(op))) == [(OpKind.FORWARD, 1)]
    assert core.take(OpBad(op)) == [Say(reports=(BadValue(epoch=0, step=0, microbatch=0),))]


def test_what_a_dropped_or_withdrawn_microbatch_holds_is_freed() -> None:
    core = training()
    hear(core, plan())
    forwarded(core, 0)
    assert hear(core, Drop(epoch=0, step=0, microbatch=0)) == [ForgetMicrobatch(0, 0, 0, 0)]
    assert hear(core, reroute(1, OTHER)) == [ForgetMicrobatch(0, 0, 1, 0)]


def test_the_last_op_of_a_replaced_epoch_still_has_its_receipt() -> None:
    core = training()
    hear(core, plan())
    effects = core.take(FrameArrived(frame_name()))
    op = next(e.op for e in effects if isinstance(e, RunOp))
    hear(core, LoadBase(epoch=1, digest=NEXT))
    core.take(BaseHeld(1, NEXT))
    hear(core, Admit(epoch=1, step=0, carries=True))
    assert ended(core, OpDone(op, made(core))) == [Say(receipts=True)]


# ---- frames --------------------------------------------------------------------------------------


def test_a_frame_goes_to_the_next_replica_and_is_announced_once_it_is_stored() -> None:
    core = training()
    hear(core, plan())
    frame = made(core)
    assert forwarded(core) == [SendFrame(frame, LAST)]
    assert core.wants(SendFrame(frame, LAST))
    assert core.take(FrameStored(frame.notice)) == [Say(frames=(frame.notice,), receipts=True)]


def test_a_frame_goes_where_the_route_leads_when_its_op_begins() -> None:
    core = training()
    hear(core, plan())
    there = reroute(0, OTHER).model_copy(update={"stage": 2})
    hear(core, there)
    assert forwarded(core) == [SendFrame(made(core), OTHER)]


@pytest.mark.parametrize(
    "event", [Drop(epoch=0, step=0, microbatch=0), reroute(0, OTHER), reroute(0, ME), close()]
)
def test_a_frame_that_nobody_waits_for_is_not_wanted(event: Event) -> None:
    core = training()
    hear(core, plan())
    forwarded(core)
    hear(core, event)
    assert not core.wants(SendFrame(made(core), LAST))


def test_a_frame_made_in_a_closed_step_is_not_sent_but_its_receipt_is() -> None:
    core = training()
    hear(core, plan())
    effects = core.take(FrameArrived(frame_name()))
    op = next(e.op for e in effects if isinstance(e, RunOp))
    hear(core, close(0))
    assert ended(core, OpDone(op, made(core))) == [Say(receipts=True)]


def test_the_receipt_of_a_frame_that_was_not_stored_goes_out() -> None:
    assert training().take(FrameNotStored(frame_name())) == [Say(receipts=True)]


def test_an_announced_frame_is_wanted_until_its_step_is_applied() -> None:
    core = training()
    fetch = FetchFrame(outgoing().notice, FIRST)
    assert hear(core, plan(), FrameReady(notice=fetch.notice, sender=FIRST)) == [fetch]
    assert core.wants(fetch)
    hear(core, close())
    assert core.wants(fetch), "a replica that started again still needs it"
    assert core.training is not None
    assert core.training.launching is not None
    ended(core, OpDone(core.training.launching.op, None))
    assert not core.wants(fetch)


def test_a_frame_of_another_epoch_is_not_fetched() -> None:
    core = training()
    notice = outgoing().notice.model_copy(update={"name": frame_name(epoch=1)})
    assert hear(core, FrameReady(notice=notice, sender=FIRST)) == []
    assert not core.wants(FetchFrame(notice, FIRST))


def test_a_lost_frame_is_reported() -> None:
    name = frame_name(direction=Direction.BACKWARD)
    effects = training().take(FrameLost(name, "gone"))
    assert effects == [Say(reports=(FrameMissing(name=name, reason="gone"),))]


# ---- objects that the store does not have -----------------------------------------------------------


def test_a_frame_that_is_missing_in_the_store_is_sent_again_while_it_is_wanted() -> None:
    core = training()
    hear(core, plan())
    forwarded(core, 0)
    wanted, other = frame_name(0, 0, stage=1), frame_name(step=9, stage=1)
    keys = tuple(str(FrameKey(SPEC.id, name)) for name in (wanted, other))
    assert SendAgain(wanted) in core.take(ObjectsMissing(keys))
    assert SendAgain(other) not in core.take(ObjectsMissing(keys))
    assert core.take(ObjectsMissing(("no/key",))) == []


# ---- the rest ------------------------------------------------------------------------------------


def test_what_was_kept_for_audits_goes_with_them() -> None:
    assert hear(new_core(), AuditsClosed(epoch=4)) == [ForgetEpoch(4)]


def test_the_end_of_the_run_is_kept_with_its_reason() -> None:
    core = new_core()
    assert hear(core, RunEnd(reason="all epochs are done")) == []
    assert core.ended == "all epochs are done"


def test_the_status_says_what_the_replica_is_at() -> None:
    core = new_core()
    states = [core.state]
    assert not core.idle, "it works for itself"
    core.take(BaseHeld(0, BASE))
    states.append(core.state)
    assert core.idle, "it waits for the epoch"
    hear(core, Admit(epoch=0, step=0, carries=True))
    core.take(StateLoaded(0, 0))
    states.append(core.state)
    assert core.idle
    hear(core, plan(), close())
    assert core.training is not None
    assert core.training.launching is not None
    assert not core.idle
    ended(core, OpDone(core.training.launching.op, None))
    states.append(core.state)
    assert states == ["loading", "ready", "epoch 0 step 0", "merging epoch 0"]
