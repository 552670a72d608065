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
    Plan,
    Reroute,
    RunEnd,
    StepClose,
)
from iota.protocol.frames import Direction, StoredObject
from iota.protocol.messages import BadValue, Delta, FrameMissing, Ready
from iota.protocol.receipts import OpKind
from iota.simulate.names import fake_hotkey
from iota.spec import Pipeline
from iota.wire.transport import OutgoingFrame
from miner.core.core import ReplicaCore
from miner.core.effects import (
    ApplyMerge,
    Effect,
    FetchBase,
    FetchFrame,
    ForgetEpoch,
    ForgetMicrobatch,
    LoadState,
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
    Heard,
    ObjectsMissing,
    OpBad,
    OpDone,
    StateLoaded,
    TokensRead,
)
from tests.support.frames import frame_name, outgoing
from tests.support.plans import share_of, whole_plan
from tests.support.virtual_runs import tiny_spec

FIRST, ME, OTHER, LAST = (fake_hotkey(n) for n in range(4))
BASE, NEXT = "ba" * 32, "cd" * 32
SPEC = tiny_spec(stages=3, replicas=1, epochs=2, steps=1, microbatches=3, pipeline=Pipeline.SYNC, credit=3)


def _core(stage: int = 1, *, reads_tokens: bool = False) -> ReplicaCore:
    return ReplicaCore(SPEC, stage, ME, reads_tokens)


def _hear(core: ReplicaCore, *events: Event) -> list[Effect]:
    return [effect for event in events for effect in core.take(Heard(event))]


def _training(stage: int = 1, *, reads_tokens: bool = False) -> ReplicaCore:
    """Admitted to epoch 0 from its start."""
    core = _core(stage, reads_tokens=reads_tokens)
    core.take(BaseHeld(0, BASE))
    assert _hear(core, Admit(epoch=0, step=0, carries=True)) == [LoadState(0, 0, carries=True)]
    assert core.take(StateLoaded(0, 0)) == [WriteCommit(0, 0)]
    return core


def _plan(stage: int = 1) -> Plan:
    """All three microbatches of step 0 go through ME at `stage`."""
    return share_of(whole_plan((FIRST, ME, LAST) if stage else (ME, FIRST, LAST), 3), ME)


def _reroute(index: int, miner: str, attempt: int = 1) -> Reroute:
    return Reroute(
        epoch=0, step=0, microbatch=index, stage=1, attempt=attempt, miner=miner, replaces=ME,
        before=FIRST, after=LAST, send_forward=True,
    )  # fmt: skip


def _close(*counted: int) -> StepClose:
    chosen = tuple((i, 0) for i in counted)
    return StepClose(epoch=0, step=0, counted=chosen, learning_rate=0.1)


def _ops(effects: list[Effect]) -> list[tuple[OpKind, int]]:
    return [(e.op.kind, e.op.microbatch) for e in effects if isinstance(e, RunOp)]


def _made(core: ReplicaCore, index: int = 0) -> OutgoingFrame:
    """A frame of a forward of this stage."""
    frame = outgoing(index)
    return OutgoingFrame(
        frame.notice.model_copy(update={"name": frame_name(0, index, stage=core.stage)}), b""
    )


def _forwarded(core: ReplicaCore, index: int = 0) -> list[Effect]:
    """The forward of a microbatch has run."""
    effects = core.take(FrameArrived(frame_name(0, index)))
    op = next(e.op for e in effects if isinstance(e, RunOp))
    return core.take(OpDone(op, _made(core, index)))


# ---- bases ---------------------------------------------------------------------------------------


def test_a_base_on_disk_is_told_at_once() -> None:
    assert _core().take(BaseHeld(3, BASE)) == [Say(reports=(Ready(epoch=3, digest=BASE),))]


def test_a_base_that_is_held_is_not_fetched_again() -> None:
    core = _core()
    core.take(BaseHeld(1, BASE))
    ready = [Say(reports=(Ready(epoch=1, digest=BASE),))]
    assert _hear(core, LoadBase(epoch=1, digest=BASE)) == ready
    assert _hear(core, LoadBase(epoch=0, digest=None)) == ready


def test_another_base_is_fetched_and_events_wait_for_it() -> None:
    core = _core()
    core.take(BaseHeld(1, BASE))
    assert _hear(core, LoadBase(epoch=1, digest=NEXT)) == [FetchBase(1, NEXT, ())]
    assert not core.listening
    core.take(BaseHeld(1, NEXT))
    assert core.listening


def test_an_admission_to_an_epoch_whose_base_is_not_held_changes_nothing() -> None:
    core = _core()
    assert _hear(core, Admit(epoch=0, step=0, carries=True)) == []
    core.take(BaseHeld(1, BASE))
    assert _hear(core, Admit(epoch=0, step=0, carries=True)) == []
    assert core.listening


def test_a_merge_waits_for_the_last_commit_and_follows_the_pseudo_gradient() -> None:
    core = _training()
    _hear(core, _plan(), _close())
    assert core.training is not None
    running = core.training.running
    assert running is not None
    assert running.op.kind is OpKind.STEP
    assert _hear(core, MergeReady(epoch=0, stage=1, parts=())) == []
    assert not core.listening
    assert core.take(OpDone(running.op, None)) == [Say(receipts=True), WriteCommit(0, 1)]
    assert core.take(Committed(0, 0)) == [Say(receipts=True)]
    effects = core.take(Committed(0, 1))
    assert effects == [Say(receipts=True), StoreDelta(0), ApplyMerge(0, (), trained=True)]
    assert core.take(BaseHeld(1, NEXT)) == [Say(reports=(Ready(epoch=1, digest=NEXT),))]
    assert core.listening
    assert core.training is None


def test_a_replica_that_did_not_train_applies_the_merge_at_once() -> None:
    core = _core()
    core.take(BaseHeld(0, BASE))
    assert _hear(core, MergeReady(epoch=0, stage=1, parts=())) == [ApplyMerge(0, (), trained=False)]


def test_a_merge_that_is_in_the_base_already_is_answered_with_that_base() -> None:
    core = _core()
    core.take(BaseHeld(1, BASE))
    assert _hear(core, MergeReady(epoch=0, stage=1, parts=())) == [
        Say(reports=(Ready(epoch=1, digest=BASE),))
    ]
    assert _hear(core, MergeReady(epoch=2, stage=1, parts=())) == []


def test_a_replica_that_is_admitted_after_the_last_step_gives_a_pseudo_gradient_too() -> None:
    core = _core()
    core.take(BaseHeld(0, BASE))
    _hear(core, Admit(epoch=0, step=SPEC.schedule.steps, carries=True))
    assert core.take(StateLoaded(0, SPEC.schedule.steps)) == [WriteCommit(0, SPEC.schedule.steps)]
    assert core.take(Committed(0, SPEC.schedule.steps)) == [Say(receipts=True), StoreDelta(0)]


def test_a_merge_that_comes_between_the_last_step_and_its_commit_waits() -> None:
    core = _training()
    _hear(core, _plan(), _close())
    assert core.training is not None
    assert core.training.running is not None
    core.take(OpDone(core.training.running.op, None))
    assert _hear(core, MergeReady(epoch=0, stage=1, parts=())) == []
    assert core.take(Committed(0, 1))[1:] == [StoreDelta(0), ApplyMerge(0, (), trained=True)]


def test_a_commit_of_a_replaced_epoch_settles_no_other() -> None:
    core = _training()
    _hear(core, LoadBase(epoch=1, digest=NEXT))
    core.take(BaseHeld(1, NEXT))
    _hear(core, Admit(epoch=1, step=SPEC.schedule.steps, carries=True))
    core.take(StateLoaded(1, SPEC.schedule.steps))
    assert core.take(Committed(0, SPEC.schedule.steps)) == [Say(receipts=True)]


def test_a_pseudo_gradient_goes_out_with_all_receipts_before_it() -> None:
    report = Delta(epoch=0, parts=(StoredObject(key="a", digest=BASE, size=1),))
    assert _core().take(DutyEnded(StoreDelta(0), report)) == [Say(reports=(report,), receipts=True)]


# ---- ops and tokens ------------------------------------------------------------------------------


def test_tokens_are_asked_for_with_the_plan_and_an_op_waits_for_its_own() -> None:
    core = _training(stage=0, reads_tokens=True)
    assert _hear(core, _plan(0)) == [ReadTokens(0, 0, index) for index in range(3)]
    assert core.take(TokensRead(0, 0, 1)) == []
    assert _ops(core.take(TokensRead(0, 0, 0))) == [(OpKind.FORWARD, 0)]
    assert core.take(TokensRead(0, 0, 2)) == [], "one op at a time"


def test_tokens_of_work_that_comes_with_a_close_alone_are_read_too() -> None:
    core = _training(stage=0, reads_tokens=True)
    assert _hear(core, _close(2)) == [ReadTokens(0, 0, 2)]
    assert _ops(core.take(TokensRead(0, 0, 2))) == [(OpKind.FORWARD, 2)]


def test_a_stage_that_reads_no_tokens_asks_for_none() -> None:
    core = _training()
    assert _hear(core, _plan()) == []
    assert _ops(core.take(FrameArrived(frame_name()))) == [(OpKind.FORWARD, 0)]


def test_a_bad_value_is_reported_and_its_microbatch_is_dropped() -> None:
    core = _training()
    _hear(core, _plan())
    core.take(FrameArrived(frame_name(0, 1)))
    effects = core.take(FrameArrived(frame_name(0, 0)))
    op = next(e.op for e in effects if isinstance(e, RunOp))
    effects = core.take(OpBad(op))
    assert effects[0] == Say(reports=(BadValue(epoch=0, step=0, microbatch=0),))
    assert _ops(effects) == [(OpKind.FORWARD, 1)]


def test_what_a_dropped_or_withdrawn_microbatch_holds_is_freed() -> None:
    core = _training()
    _hear(core, _plan())
    _forwarded(core, 0)
    assert _hear(core, Drop(epoch=0, step=0, microbatch=0)) == [ForgetMicrobatch(0, 0, 0, 0)]
    assert _hear(core, _reroute(1, OTHER)) == [ForgetMicrobatch(0, 0, 1, 0)]


def test_the_last_op_of_a_replaced_epoch_still_has_its_receipt() -> None:
    core = _training()
    _hear(core, _plan())
    effects = core.take(FrameArrived(frame_name()))
    op = next(e.op for e in effects if isinstance(e, RunOp))
    _hear(core, LoadBase(epoch=1, digest=NEXT))
    core.take(BaseHeld(1, NEXT))
    _hear(core, Admit(epoch=1, step=0, carries=True))
    assert core.take(OpDone(op, _made(core))) == [Say(receipts=True)]


# ---- frames --------------------------------------------------------------------------------------


def test_a_frame_goes_to_the_next_replica_and_is_announced_once_it_is_stored() -> None:
    core = _training()
    _hear(core, _plan())
    frame = _made(core)
    assert _forwarded(core) == [SendFrame(frame, LAST)]
    assert core.wants(SendFrame(frame, LAST))
    assert core.take(FrameStored(frame.notice)) == [Say(frames=(frame.notice,), receipts=True)]


def test_a_frame_goes_where_the_route_leads_when_its_op_begins() -> None:
    core = _training()
    _hear(core, _plan())
    there = _reroute(0, OTHER).model_copy(update={"stage": 2})
    _hear(core, there)
    assert _forwarded(core) == [SendFrame(_made(core), OTHER)]


@pytest.mark.parametrize(
    "event", [Drop(epoch=0, step=0, microbatch=0), _reroute(0, OTHER), _reroute(0, ME), _close()]
)
def test_a_frame_that_nobody_waits_for_is_not_wanted(event: Event) -> None:
    core = _training()
    _hear(core, _plan())
    _forwarded(core)
    _hear(core, event)
    assert not core.wants(SendFrame(_made(core), LAST))


def test_a_frame_made_in_a_closed_step_is_not_sent_but_its_receipt_is() -> None:
    core = _training()
    _hear(core, _plan())
    effects = core.take(FrameArrived(frame_name()))
    op = next(e.op for e in effects if isinstance(e, RunOp))
    _hear(core, _close(0))
    assert core.take(OpDone(op, _made(core))) == [Say(receipts=True)]


def test_the_receipt_of_a_frame_that_was_not_stored_goes_out() -> None:
    assert _training().take(FrameNotStored(frame_name())) == [Say(receipts=True)]


def test_an_announced_frame_is_wanted_until_its_step_is_applied() -> None:
    core = _training()
    fetch = FetchFrame(outgoing().notice, FIRST)
    assert _hear(core, _plan(), FrameReady(notice=fetch.notice, sender=FIRST)) == [fetch]
    assert core.wants(fetch)
    _hear(core, _close())
    assert core.wants(fetch), "a replica that started again still needs it"
    assert core.training is not None
    assert core.training.running is not None
    core.take(OpDone(core.training.running.op, None))
    assert not core.wants(fetch)


def test_a_frame_of_another_epoch_is_not_fetched() -> None:
    core = _training()
    notice = outgoing().notice.model_copy(update={"name": frame_name(epoch=1)})
    assert _hear(core, FrameReady(notice=notice, sender=FIRST)) == []
    assert not core.wants(FetchFrame(notice, FIRST))


def test_a_lost_frame_is_reported() -> None:
    name = frame_name(direction=Direction.BACKWARD)
    effects = _training().take(FrameLost(name, "gone"))
    assert effects == [Say(reports=(FrameMissing(name=name, reason="gone"),))]


# ---- objects that the store does not have -----------------------------------------------------------


def test_a_frame_that_is_missing_in_the_store_is_sent_again_while_it_is_wanted() -> None:
    core = _training()
    _hear(core, _plan())
    _forwarded(core, 0)
    wanted, other = frame_name(0, 0, stage=1), frame_name(step=9, stage=1)
    keys = tuple(str(FrameKey(SPEC.id, name)) for name in (wanted, other))
    assert SendAgain(wanted) in core.take(ObjectsMissing(keys))
    assert SendAgain(other) not in core.take(ObjectsMissing(keys))
    assert core.take(ObjectsMissing(("no/key",))) == []


# ---- the rest ------------------------------------------------------------------------------------


def test_what_was_kept_for_audits_goes_with_them() -> None:
    assert _hear(_core(), AuditsClosed(epoch=4)) == [ForgetEpoch(4)]


def test_the_end_of_the_run_is_kept_with_its_reason() -> None:
    core = _core()
    assert _hear(core, RunEnd(reason="all epochs are done")) == []
    assert core.ended == "all epochs are done"


def test_the_status_says_what_the_replica_is_at() -> None:
    core = _core()
    states = [core.state]
    assert not core.idle, "it works for itself"
    core.take(BaseHeld(0, BASE))
    states.append(core.state)
    assert core.idle, "it waits for the epoch"
    _hear(core, Admit(epoch=0, step=0, carries=True))
    core.take(StateLoaded(0, 0))
    states.append(core.state)
    assert core.idle
    _hear(core, _plan(), _close())
    assert core.training is not None
    assert core.training.running is not None
    assert not core.idle
    core.take(OpDone(core.training.running.op, None))
    states.append(core.state)
    assert states == ["loading", "ready", "epoch 0 step 0", "merging epoch 0"]
