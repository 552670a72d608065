"""Frames that their receivers keep: delivery, denials, and re-routes after which nobody has them."""

from __future__ import annotations

import pytest

from iota.protocol.events import Drop, Event, FrameReady, Reroute, StoreFrame
from iota.protocol.frames import Direction, FrameKept, FrameName, FrameNotice
from iota.protocol.messages import BadValue, FrameMissing
from iota.protocol.receipts import OpKind
from iota.spec import Pipeline
from orchestrator.coordinator import Finding
from orchestrator.coordinator.denials import MAX_DENIED
from orchestrator.coordinator.epoch_state import Ending, MicrobatchState, Place
from orchestrator.coordinator.member import Member
from tests.support.coordinators import Driven, frame
from tests.support.virtual_runs import tiny_spec

SPEC = tiny_spec(stages=3, replicas=2, epochs=2, steps=2, microbatches=8, pipeline=Pipeline.SYNC, credit=4)
F, B = Direction.FORWARD, Direction.BACKWARD


@pytest.fixture
def driven() -> Driven:
    """Three stages of two replicas; microbatch 0 has gone through the first stage, whose frame was pushed."""
    made = Driven.training(SPEC)
    for member in made.state.miners():
        made.news(member)
    push(made, 0, 0, OpKind.FORWARD)
    return made


def microbatch(driven: Driven, index: int = 0) -> MicrobatchState:
    return driven.state.current.steps[0].microbatches[index]


def place(driven: Driven, stage: int, index: int = 0) -> Place:
    return microbatch(driven, index).places[stage]


def holder(driven: Driven, stage: int, index: int = 0) -> Member:
    return driven.state.members[place(driven, stage, index).miner]


def other(driven: Driven, stage: int) -> Member:
    """The replica of a stage that has not microbatch 0."""
    return next(m for m in driven.state.miners(stage) if m is not holder(driven, stage))


def kept(
    driven: Driven, stage: int, made: Direction, index: int = 0, by: Member | None = None
) -> FrameNotice:
    """The notice of a frame of the present attempt at a stage, kept by its receiver or by another."""
    notice = frame(0, 0, index, place(driven, stage, index).attempt, stage, made)
    receiver = by or holder(driven, stage + (1 if made is F else -1), index)
    return notice.model_copy(update={"kept": FrameKept(receiver=receiver.hotkey, signature="00" * 64)})


def push(driven: Driven, index: int, stage: int, kind: OpKind, *, receipted: bool = True) -> None:
    """The replica at a stage runs one op and pushes its frame."""
    member, made = holder(driven, stage, index), Direction.of(kind)
    receipt = driven.receipt(member, kind, 0, index, place(driven, stage, index).attempt)
    leads = made is F or stage > 0
    frames = [kept(driven, stage, made, index)] if leads else []
    driven.say(member, receipts=[receipt] if receipted else [], frames=frames)


def told(driven: Driven, member: Member, *kinds: type[Event]) -> list[Event]:
    return [event for event in driven.news(member) if isinstance(event, kinds or object)]


def reroutes(driven: Driven, member: Member, stage: int) -> list[Reroute]:
    """The re-routes of the first microbatch at a stage that a member has heard of since the last call."""
    news = driven.news(member)
    return [e for e in news if isinstance(e, Reroute) and (e.step, e.microbatch, e.stage) == (0, 0, stage)]


def deny(driven: Driven, member: Member, name: FrameName) -> None:
    driven.say(member, reports=[FrameMissing(name=name, reason="gone")])


def costs(driven: Driven, *members: Member) -> list[tuple[int, int]]:
    """Withdrawn work and unproven words of each, as the epoch's record has them."""
    epoch = driven.state.current
    return [(epoch.withdrawn.get(m.hotkey, 0), epoch.unproven.get(m.hotkey, 0)) for m in members]


# ---- delivery ------------------------------------------------------------------------------------


def test_a_kept_frame_is_delivered_its_receiver_hears_nothing_and_is_waited_for(driven: Driven) -> None:
    sender, receiver = holder(driven, 0), holder(driven, 1)
    assert place(driven, 0).forward == (0, "0" * 64, 1, receiver.hotkey)
    assert told(driven, receiver) == []
    assert (0, 0, F) not in sender.pending
    assert (0, 0, F) in receiver.pending


def test_what_another_keeps_is_not_delivered_and_gives_no_entry(driven: Driven) -> None:
    sender, notice = holder(driven, 0, 1), kept(driven, 0, F, 1, by=other(driven, 1))
    if holder(driven, 1, 1) is other(driven, 1):
        notice = kept(driven, 0, F, 1, by=holder(driven, 1))
    assert not driven.coordinator.is_new(sender.hotkey, notice)
    driven.say(sender, frames=[notice])
    assert place(driven, 0, 1).forward is None
    assert driven.state.totals.unfit == 1


def test_a_whole_microbatch_settles_by_kept_frames_alone(driven: Driven) -> None:
    push(driven, 0, 1, OpKind.FORWARD)
    push(driven, 0, 2, OpKind.LOSS)
    push(driven, 0, 1, OpKind.BACKWARD)
    push(driven, 0, 0, OpKind.BACKWARD)
    assert microbatch(driven).ended is Ending.SETTLED
    assert not any(told(driven, member, FrameReady) for member in driven.state.miners())


def test_a_notice_that_comes_after_the_op_that_used_the_frame_starts_no_deadline(driven: Driven) -> None:
    middle, last = holder(driven, 1), holder(driven, 2)
    push(driven, 0, 1, OpKind.FORWARD)
    push(driven, 0, 2, OpKind.LOSS, receipted=False)
    assert (0, 0, B) in middle.pending
    receipt = driven.receipt(middle, OpKind.BACKWARD, 0, 0)
    late = kept(driven, 1, B)
    driven.say(middle, receipts=[receipt], frames=[late])
    assert middle.pending == {}
    driven.say(last, receipts=[driven.receipt(last, OpKind.LOSS, 0, 0)])
    assert last.pending == {}


def test_a_frame_that_is_in_the_store_as_well_is_recorded_and_its_receiver_is_not_told(
    driven: Driven,
) -> None:
    sender, receiver = holder(driven, 0), holder(driven, 1)
    stored = frame(0, 0, 0, 0, 0, F)
    assert driven.coordinator.is_new(sender.hotkey, stored)
    driven.say(sender, frames=[stored])
    assert told(driven, receiver) == []
    assert not driven.coordinator.is_new(sender.hotkey, stored)
    driven.lose(receiver)
    [event] = told(driven, holder(driven, 1), FrameReady)
    assert event == FrameReady(notice=stored, sender=sender.hotkey)
    assert place(driven, 0).forward == (0, "0" * 64, 1, None)


def test_what_is_stored_first_and_kept_afterwards_stays_stored(driven: Driven) -> None:
    sender = holder(driven, 0, 1)
    driven.say(sender, frames=[frame(0, 0, 1, 0, 0, F)])
    assert not driven.coordinator.is_new(sender.hotkey, kept(driven, 0, F, 1))


def test_who_names_one_frame_with_two_digests_is_named_once_an_epoch(driven: Driven) -> None:
    sender = holder(driven, 0)
    lie = frame(0, 0, 0, 0, 0, F).model_copy(update={"digest": "1" * 64})
    assert driven.coordinator.is_new(sender.hotkey, lie)
    driven.say(sender, frames=[lie])
    assert place(driven, 0).forward == (0, "0" * 64, 1, holder(driven, 1).hotkey)
    assert [line for line in driven.state.incidents.named if "two digests" in line]
    assert driven.state.totals.unfit == 1
    assert not driven.coordinator.is_new(sender.hotkey, lie)


# ---- denials -------------------------------------------------------------------------------------

NAME = frame(0, 0, 0, 0, 0, F).name


def test_a_denied_frame_comes_through_the_store_and_nobody_is_blamed(driven: Driven) -> None:
    sender, receiver = holder(driven, 0), holder(driven, 1)
    driven.now += 5
    assert driven.coordinator.questioned(receiver.hotkey, FrameMissing(name=NAME, reason="gone")) == []
    deny(driven, receiver, NAME)
    assert place(driven, 0).forward is None
    assert told(driven, sender) == [StoreFrame(name=NAME)]
    assert sender.pending[0, 0, F] == driven.now, "its deadline is not that of the op"
    assert not driven.coordinator.is_new(sender.hotkey, kept(driven, 0, F)), "it is kept by who cannot use it"
    driven.say(sender, frames=[frame(0, 0, 0, 0, 0, F)])
    assert [event.notice.name for event in told(driven, receiver, FrameReady)] == [NAME]
    assert (0, 0, F) not in sender.pending
    assert (holder(driven, 0), holder(driven, 1)) == (sender, receiver)
    assert costs(driven, sender, receiver) == [(0, 0), (0, 0)]


def test_a_word_against_the_stored_frame_is_judged_by_what_is_there(driven: Driven) -> None:
    sender, receiver = holder(driven, 0), holder(driven, 1)
    deny(driven, receiver, NAME)
    driven.say(sender, frames=[frame(0, 0, 0, 0, 0, F)])
    report = FrameMissing(name=NAME, reason="gone")
    assert [e.notice.name for e in driven.coordinator.questioned(receiver.hotkey, report)] == [NAME]
    driven.say(receiver, reports=[report], looked={NAME: Finding.SOUND})
    assert costs(driven, sender, receiver) == [(0, 0), (1, 1)]


def test_a_denial_that_comes_before_the_notice_stands_when_that_comes(driven: Driven) -> None:
    sender, receiver = holder(driven, 0, 1), holder(driven, 1, 1)
    notice = kept(driven, 0, F, 1)
    driven.news(sender)
    deny(driven, receiver, notice.name)
    assert told(driven, sender) == []
    assert not driven.coordinator.is_new(receiver.hotkey, FrameMissing(name=notice.name, reason="gone"))
    driven.say(sender, frames=[notice])
    assert told(driven, sender) == [StoreFrame(name=notice.name)]
    assert place(driven, 0, 1).forward is None
    assert (0, 1, F) in sender.pending
    assert (0, 1, F) not in receiver.pending


def test_a_frame_that_is_stored_too_is_announced_when_it_is_denied(driven: Driven) -> None:
    sender, receiver = holder(driven, 0), holder(driven, 1)
    driven.say(sender, frames=[frame(0, 0, 0, 0, 0, F)])
    deny(driven, receiver, NAME)
    assert told(driven, sender, StoreFrame) == []
    assert [event.notice.name for event in told(driven, receiver, FrameReady)] == [NAME]


def test_who_denies_everything_loses_the_work_in_the_end_and_its_neighbours_nothing(driven: Driven) -> None:
    liar = holder(driven, 1)
    mine = [i for i in range(8) if holder(driven, 1, i) is liar][:3]
    for index in mine[1:]:
        push(driven, index, 0, OpKind.FORWARD)
    driven.state.current.denied[liar.hotkey] = MAX_DENIED - 2
    for index in mine:
        deny(driven, liar, frame(0, 0, index, 0, 0, F).name)
    assert costs(driven, liar, *driven.state.miners(0)) == [(1, 1), (0, 0), (0, 0)]
    assert [holder(driven, 1, index) is liar for index in mine] == [True, True, False]


def test_nan_from_frames_that_nobody_else_has_is_no_word_until_they_are_stored(driven: Driven) -> None:
    sender, receiver = holder(driven, 0), holder(driven, 1)
    nan = BadValue(epoch=0, step=0, microbatch=0, signature="5a" * 64)
    assert driven.coordinator.questioned(receiver.hotkey, nan) == []
    driven.say(receiver, reports=[nan])
    assert told(driven, sender) == [StoreFrame(name=NAME)]
    assert holder(driven, 1) is receiver
    assert driven.state.current.words == {}
    driven.say(sender, frames=[frame(0, 0, 0, 0, 0, F)])
    driven.say(receiver, reports=[nan], looked={NAME: Finding.SOUND})
    [word] = driven.state.current.words[receiver.hotkey]
    assert [notice.name for notice in word.inputs] == [NAME]


def test_nan_from_a_frame_whose_notice_is_still_under_way_is_no_word_either(driven: Driven) -> None:
    sender, receiver = holder(driven, 0, 1), holder(driven, 1, 1)
    notice = kept(driven, 0, F, 1)
    driven.say(receiver, reports=[BadValue(epoch=0, step=0, microbatch=1, signature="5a" * 64)])
    assert driven.state.current.words == {}
    driven.news(sender)
    driven.say(sender, frames=[notice])
    assert told(driven, sender) == [StoreFrame(name=notice.name)]


def test_a_denied_frame_of_an_attempt_that_is_over_is_made_again_as_a_new_attempt(driven: Driven) -> None:
    old, receiver = holder(driven, 0), holder(driven, 1)
    driven.lose(old)  # its gradient is still to come, so that another has the microbatch, without a FORWARD
    [event] = reroutes(driven, holder(driven, 0), 0)
    assert not event.send_forward
    deny(driven, receiver, NAME)
    holds = holder(driven, 0)
    [again] = reroutes(driven, holds, 0)
    assert (again.miner, again.replaces, again.send_forward) == (holds.hotkey, holds.hotkey, True)
    assert (0, 0, F) in holds.pending
    assert costs(driven, holds, receiver) == [(0, 0), (0, 0)]


def test_a_late_replica_that_nobody_can_replace_gets_what_it_waits_for_through_the_store(
    driven: Driven,
) -> None:
    """It has lost what it acknowledged, and does not know that it had it."""
    sender, receiver = holder(driven, 0), holder(driven, 1)
    driven.lose(other(driven, 1))
    driven.news(sender)
    driven.wait(20.0)
    while not receiver.stalled:
        driven.wait(20.0)
    assert StoreFrame(name=NAME) in told(driven, sender, StoreFrame)
    driven.say(sender, frames=[frame(0, 0, 0, 0, 0, F)])
    assert [event.notice.name for event in told(driven, receiver, FrameReady)] == [NAME]


def test_what_a_late_replica_acknowledges_is_stored_all_the_same(driven: Driven) -> None:
    receiver = holder(driven, 1)
    index = next(i for i in range(1, 8) if holder(driven, 1, i) is receiver)
    sender = holder(driven, 0, index)
    driven.lose(other(driven, 1))
    while not receiver.stalled:
        driven.wait(20.0)
    driven.news(sender)
    notice = kept(driven, 0, F, index)
    driven.say(sender, frames=[notice])
    assert told(driven, sender) == [StoreFrame(name=notice.name)]
    assert not driven.coordinator.is_new(sender.hotkey, notice)


# ---- re-routes -----------------------------------------------------------------------------------


def test_what_a_lost_receiver_kept_is_sent_again_by_its_maker_in_the_time_of_an_op(driven: Driven) -> None:
    sender, receiver = holder(driven, 0), holder(driven, 1)
    driven.now += 5
    driven.lose(receiver)
    assert place(driven, 0).forward is None
    [event] = reroutes(driven, sender, 1)
    assert event.miner == holder(driven, 1).hotkey
    assert sender.pending[0, 0, F] == driven.now
    driven.say(sender, frames=[kept(driven, 0, F)])
    assert place(driven, 0).forward == (0, "0" * 64, 1, holder(driven, 1).hotkey)
    assert costs(driven, sender) == [(0, 0)]


def test_a_gradient_that_a_lost_replica_kept_is_sent_again_and_its_activations_too(driven: Driven) -> None:
    push(driven, 0, 1, OpKind.FORWARD)
    push(driven, 0, 2, OpKind.LOSS)
    first, last = holder(driven, 0), holder(driven, 2)
    assert last.pending == {}
    driven.lose(holder(driven, 1))
    assert (place(driven, 0).forward, place(driven, 2).backward) == (None, None)
    assert (0, 0, F) in first.pending
    assert (0, 0, F) in last.pending, "a LOSS is waited for by its activations"
    assert place(driven, 1).forward is not None, "the last stage keeps it"


def test_a_frame_of_an_attempt_that_is_over_is_made_again_when_its_receiver_is_lost(driven: Driven) -> None:
    driven.lose(holder(driven, 0))
    second = holder(driven, 0)
    assert place(driven, 0).attempt > 0
    driven.news(second)
    driven.lose(holder(driven, 1))
    [event] = reroutes(driven, second, 0)
    assert (event.miner, event.send_forward) == (second.hotkey, True)
    assert place(driven, 0).attempt == event.attempt


def test_what_a_receiver_keeps_stays_delivered_when_it_has_the_microbatch_anew(driven: Driven) -> None:
    """The sums of the last stage are void; the middle one does its part again from what is on its disk."""
    push(driven, 0, 1, OpKind.FORWARD)
    push(driven, 0, 2, OpKind.LOSS)
    push(driven, 0, 1, OpKind.BACKWARD)
    push(driven, 0, 0, OpKind.BACKWARD)
    assert microbatch(driven).ended is Ending.SETTLED
    middle, last = holder(driven, 1), holder(driven, 2)
    driven.join(last.order, receipts=0)
    assert microbatch(driven).ended is None
    assert holder(driven, 1) is middle
    assert place(driven, 0).forward == (0, "0" * 64, 1, middle.hotkey)
    assert holder(driven, 2) is not last
    assert place(driven, 1).forward is None
    assert (0, 0, F) in middle.pending, "it sends its activations to another"


def test_what_a_replica_kept_before_it_lost_its_disk_is_sent_again_once_it_is_admitted(
    driven: Driven,
) -> None:
    receiver, sender = holder(driven, 1), holder(driven, 0)
    driven.lose(other(driven, 1))
    driven.join(receiver.order, receipts=0)
    assert holder(driven, 1) is receiver, "nobody else is there"
    driven.hold_base()
    assert receiver.joined is not None
    assert place(driven, 1).attempt > 0
    assert place(driven, 0).forward is None
    assert (0, 0, F) in sender.pending


def test_an_acknowledgement_of_a_life_whose_disk_is_lost_delivers_nothing(driven: Driven) -> None:
    """Its sender could show it again, and the receiver would be late with a frame that it does not have."""
    receiver, sender = holder(driven, 1), holder(driven, 0)
    driven.lose(other(driven, 1))
    driven.join(receiver.order, receipts=0)
    driven.hold_base()
    driven.news(sender)
    driven.say(sender, frames=[kept(driven, 0, F)])
    assert place(driven, 0).forward is None
    assert (0, 0, F) not in receiver.pending
    assert (0, 0, F) in sender.pending
    assert told(driven, sender) == [StoreFrame(name=NAME)]
    driven.say(sender, frames=[frame(0, 0, 0, 0, 0, F)])
    assert [event.notice.name for event in told(driven, receiver, FrameReady)] == [NAME]
    assert costs(driven, sender, receiver) == [(0, 0), (0, 0)]


def test_a_replica_that_is_back_with_its_disk_still_has_what_it_kept(driven: Driven) -> None:
    receiver = holder(driven, 1)
    driven.lose(other(driven, 1))
    driven.join(receiver.order, receipts=receiver.receipts, epoch=0)
    assert receiver.resume
    assert place(driven, 0).forward == (0, "0" * 64, 1, receiver.hotkey)


def test_who_was_to_send_a_frame_that_its_receiver_has_used_is_told_that_it_need_not(driven: Driven) -> None:
    """The frame was pushed, and its sender is lost before it could say so."""
    push(driven, 0, 1, OpKind.FORWARD)
    push(driven, 0, 2, OpKind.LOSS)
    middle = holder(driven, 1)
    driven.say(middle, receipts=[driven.receipt(middle, OpKind.BACKWARD, 0, 0)])
    driven.lose(middle)
    second = holder(driven, 1)
    assert second is not middle
    push(driven, 0, 0, OpKind.BACKWARD)
    assert microbatch(driven).ended is Ending.SETTLED
    assert Drop(epoch=0, step=0, microbatch=0) in told(driven, second, Drop)


def test_losses_one_after_another_end_in_a_dropped_microbatch_and_not_in_a_wait(driven: Driven) -> None:
    for _ in range(driven.state.limits.attempts + 1):
        if microbatch(driven).ended is None:
            gone = holder(driven, 1)
            driven.lose(gone)
            driven.come_back(gone)
            if microbatch(driven).ended is None and place(driven, 0).forward is None:
                driven.say(holder(driven, 0), frames=[kept(driven, 0, F)])
    assert microbatch(driven).ended is Ending.DROPPED
