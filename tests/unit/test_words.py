"""Words against frames: the server's look decides who loses the work, and a false word costs who said it."""

from __future__ import annotations

import pytest

from iota.protocol.events import Reroute
from iota.protocol.frames import Direction, FrameName
from iota.protocol.member_records import Withdrawal
from iota.protocol.messages import BadValue, FrameMissing
from iota.protocol.receipts import OpKind
from iota.protocol.records import MAX_WORDS
from orchestrator.coordinator import Finding
from orchestrator.coordinator.epoch_state import MicrobatchState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.words import MAX_LOOKS
from tests.support.coordinators import Driven, frame
from tests.support.small_spec import small_spec

NAME = frame(0, 0, 0, 0, 0, Direction.FORWARD).name
MISSING = FrameMissing(name=NAME, reason="404")
NAN = BadValue(epoch=0, step=0, microbatch=0, signature="5a" * 64)


@pytest.fixture
def driven() -> Driven:
    """Two stages of two replicas; the first frame of microbatch 0 is stored."""
    found = Driven.training(small_spec(layout={"cuts": [1, 2], "replicas": 2}))
    found.run_op(0, 0, 0, OpKind.FORWARD)
    return found


def _microbatch(driven: Driven, index: int = 0) -> MicrobatchState:
    return driven.state.current.steps[0].microbatches[index]


def _route(driven: Driven, index: int = 0) -> tuple[Member, Member]:
    """The sender and the receiver of microbatch 0's first frame."""
    first, second = (driven.state.members[place.miner] for place in _microbatch(driven, index).places)
    return first, second


def _costs(driven: Driven, *members: Member) -> list[tuple[int, int]]:
    """Withdrawn work and unproven words of each, as the epoch's record has them."""
    epoch = driven.state.current
    return [(epoch.withdrawn.get(m.hotkey, 0), epoch.unproven.get(m.hotkey, 0)) for m in members]


def test_who_denies_a_neighbours_frame_loses_the_work_and_the_neighbour_keeps_its(driven: Driven) -> None:
    sender, liar = _route(driven)
    assert [e.notice.name for e in driven.coordinator.questioned(liar.hotkey, MISSING)] == [NAME]
    driven.say(liar, reports=[MISSING], looked={NAME: Finding.SOUND})
    now_sender, now_receiver = _route(driven)
    assert (now_sender, now_receiver.stage) == (sender, 1)
    assert now_receiver is not liar
    assert _microbatch(driven).places[0].forward is not None
    assert _costs(driven, sender, liar) == [(0, 0), (1, 1)]
    driven.say(liar, reports=[MISSING], looked={NAME: Finding.SOUND})  # it is not its work any more
    assert _costs(driven, sender, liar) == [(0, 0), (1, 1)]


def test_a_frame_that_the_store_lost_costs_nobody_and_names_the_store(driven: Driven) -> None:
    sender, receiver = _route(driven)
    driven.say(receiver, reports=[MISSING], looked={NAME: Finding.ABSENT})
    assert _route(driven)[0] is not sender
    assert _costs(driven, sender, receiver) == [(0, 0), (0, 0)]
    assert "the object store lost frame" in driven.state.incidents.named[-1]


@pytest.mark.parametrize("finding", [Finding.OTHER, Finding.INVALID, Finding.NOT_FINITE])
def test_a_frame_that_is_not_what_its_sender_announced_costs_its_sender(
    driven: Driven, finding: Finding
) -> None:
    sender, receiver = _route(driven)
    driven.say(receiver, reports=[MISSING], looked={NAME: finding})
    assert _costs(driven, sender, receiver) == [(1, 0), (0, 0)]
    assert driven.state.incidents.named[-1].startswith(sender.hotkey)


def test_a_sender_of_nan_is_charged_and_another_does_its_work(driven: Driven) -> None:
    sender, receiver = _route(driven)
    driven.say(receiver, reports=[NAN], looked={NAME: Finding.NOT_FINITE})
    assert _costs(driven, sender, receiver) == [(1, 0), (0, 0)]
    assert not driven.state.current.words
    # The receiver has given it up, and a replica of each stage goes on.
    assert not {sender.hotkey, receiver.hotkey} & {m.hotkey for m in _route(driven)}
    for stage, kind in ((0, OpKind.FORWARD), (1, OpKind.LOSS), (0, OpKind.BACKWARD)):
        driven.run_op(0, 0, stage, kind)
    assert driven.state.totals.settled == 1


def test_a_sender_whose_model_diverges_is_not_charged_for_a_word_of_its_receiver(driven: Driven) -> None:
    """Its values are finite and beyond the bound, from inputs that may have been sound."""
    sender, receiver = _route(driven)
    driven.say(receiver, reports=[NAN], looked={NAME: Finding.LARGE})
    assert _costs(driven, sender, receiver) == [(0, 0), (0, 0)]
    assert not {sender.hotkey, receiver.hotkey} & {m.hotkey for m in _route(driven)}


def test_a_frame_of_large_values_is_there_so_that_its_denial_is_false(driven: Driven) -> None:
    sender, liar = _route(driven)
    driven.say(liar, reports=[MISSING], looked={NAME: Finding.LARGE})
    assert _costs(driven, sender, liar) == [(0, 0), (1, 1)]


def test_nan_of_finite_frames_stands_in_the_record_and_another_replica_does_the_work(driven: Driven) -> None:
    sender, speaker = _route(driven)
    driven.news(speaker)
    driven.say(speaker, reports=[NAN], looked={NAME: Finding.SOUND})
    [word] = driven.state.current.words[speaker.hotkey]
    assert (word.hotkey, word.stage, word.step, word.microbatch, word.attempt) == (speaker.hotkey, 1, 0, 0, 0)
    assert [notice.name for notice in word.inputs] == [NAME]
    assert word.signature == NAN.signature
    _, other = _route(driven)
    assert (other.stage, other is speaker) == (1, False)
    assert any(isinstance(event, Reroute) for event in driven.news(speaker))
    assert _costs(driven, sender, speaker) == [(0, 0), (0, 1)]
    driven.run_op(0, 0, 1, OpKind.LOSS)
    driven.run_op(0, 0, 0, OpKind.BACKWARD)
    assert driven.state.totals.settled == 1  # the neighbour is paid


def test_what_two_replicas_find_to_be_nan_is_dropped(driven: Driven) -> None:
    for _ in range(2):
        driven.say(_route(driven)[1], reports=[NAN], looked={NAME: Finding.SOUND})
    assert driven.state.totals.dropped == 1
    assert sum(len(words) for words in driven.state.current.words.values()) == 2


def test_words_beyond_those_that_are_repeated_cost_the_work() -> None:
    spec = small_spec(
        layout={"cuts": [1, 2], "replicas": 2},
        schedule={"epochs": 2, "steps": 1, "microbatches": 4 * MAX_WORDS},
    )
    driven = Driven.training(spec)
    liar = driven.state.miners(1)[0]
    mine = [index for step, index in liar.work if step == 0]
    for index in mine[: MAX_WORDS + 2]:
        driven.run_op(0, index, 0, OpKind.FORWARD)
        driven.say(liar, reports=[BadValue(epoch=0, step=0, microbatch=index, signature="5a" * 64)])
    assert len(driven.state.current.words[liar.hotkey]) == MAX_WORDS
    assert _costs(driven, liar) == [(2, MAX_WORDS + 2)]


def test_repeated_false_words_are_not_looked_at_for_ever(driven: Driven) -> None:
    sender, liar = _route(driven)
    driven.state.current.unproven[liar.hotkey] = MAX_LOOKS
    assert driven.coordinator.questioned(liar.hotkey, MISSING) == []
    driven.say(liar, reports=[MISSING])
    assert _route(driven)[0] is sender
    assert _costs(driven, sender, liar) == [(0, 0), (1, MAX_LOOKS + 1)]


def test_without_another_replica_a_denied_frame_ends_the_microbatch_at_the_speakers_cost() -> None:
    driven = Driven.training(small_spec())
    driven.run_op(0, 0, 0, OpKind.FORWARD)
    sender, liar = _route(driven)
    driven.say(liar, reports=[MISSING], looked={NAME: Finding.SOUND})
    assert driven.state.totals.dropped == 1
    assert _costs(driven, sender, liar) == [(0, 0), (1, 1)]


def test_the_record_says_what_each_word_cost() -> None:
    spec = small_spec(layout={"cuts": [1, 2], "replicas": 2})
    for report, finding, why, told in (
        (MISSING, Finding.SOUND, Withdrawal.WORD, "there and right, so that the microbatch counts"),
        (NAN, Finding.SOUND, None, "from finite frames, which stands in the epoch's record"),
        (MISSING, Finding.OTHER, Withdrawal.FRAME, f"frame {NAME}, so that the microbatch counts"),
    ):
        driven = Driven.training(spec)
        driven.run_op(0, 0, 0, OpKind.FORWARD)
        sender, receiver = _route(driven)
        driven.say(receiver, reports=[report], looked={NAME: finding})
        blamed = sender if why is Withdrawal.FRAME else receiver
        record = driven.coordinator.member_record(blamed.hotkey)
        assert record is not None
        assert told in record.incidents[-1].text
        assert record.withdrawals == ({} if why is None else {why: 1})


def test_words_on_frames_that_are_not_the_members_cost_no_look(driven: Driven) -> None:
    sender, receiver = _route(driven)
    other = next(m for m in driven.state.miners(1) if m is not receiver)
    for who in (sender, other):
        assert driven.coordinator.questioned(who.hotkey, MISSING) == []
    made_up = FrameName(epoch=0, step=0, microbatch=1, attempt=0, stage=0, direction=Direction.FORWARD)
    assert driven.coordinator.questioned(receiver.hotkey, FrameMissing(name=made_up, reason="")) == []


def test_a_frame_of_a_replica_that_was_replaced_since_is_charged_to_who_made_it(driven: Driven) -> None:
    maker, receiver = _route(driven)
    driven.lose(maker)
    after, _ = _route(driven)
    assert after is not maker
    assert [e.sender for e in driven.coordinator.questioned(receiver.hotkey, MISSING)] == [maker.hotkey]
    before = driven.state.current.withdrawn.get(maker.hotkey, 0)
    driven.say(receiver, reports=[MISSING], looked={NAME: Finding.INVALID})
    assert driven.state.current.withdrawn[maker.hotkey] == before + 1
    assert _costs(driven, after) == [(0, 0)]
