"""Overlap at the orchestrator: an epoch is merged while the next one is trained from own starts."""

from __future__ import annotations

import pytest

from iota.protocol.events import Admit, LoadBase, MergeReady
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.messages import BaseStored, Delta, Ready
from iota.protocol.records import EpochRecord
from orchestrator.coordinator import patience
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import Driven
from tests.support.small_spec import small_spec

SCHEDULE = {"epochs": 3, "steps": 2, "microbatches": 2}


@pytest.fixture
def driven() -> Driven:
    """Two stages of two replicas have trained epoch 0, and are in epoch 1."""
    spec = small_spec(
        layout={"cuts": [2, 1], "replicas": 2},
        schedule=SCHEDULE,
        outer={"overlap": "one_epoch", "part_elements": 8192},
    )
    found = Driven.training(spec)
    train(found)
    return found


def train(driven: Driven) -> None:
    """All steps of the current epoch."""
    number = driven.state.epoch
    for member in driven.state.miners():
        if member.joined is not None:
            driven.commit(member)
    for step in range(SCHEDULE["steps"]):
        for index in range(SCHEDULE["microbatches"]):
            if driven.state.epoch == number:
                driven.run_microbatch(step, index)


def admissions(driven: Driven, member: Member, epoch: int) -> list[bool]:
    """`carries` of its admissions to an epoch since the last look."""
    return [e.carries for e in driven.news(member) if isinstance(e, Admit) and e.epoch == epoch]


def merged(driven: Driven) -> EpochRecord:
    """All contribute, and the merge that is under way is over and sealed."""
    driven.give_all()
    driven.draw_mergers()
    driven.merge_all()
    return driven.seal()


def store_bases(driven: Driven, number: int) -> None:
    for stage in range(driven.state.stages):
        keeper = driven.state.members[driven.state.bases.keepers[number, stage]]
        parts = (StoredObject(key=f"base/{number}/{stage}", digest="1" * 64, size=1),)
        digest = driven.state.bases.digests[number, stage]
        driven.say(keeper, reports=[BaseStored(epoch=number, digest=digest, parts=parts)])


def test_the_next_epoch_begins_before_the_merge_is_over(driven: Driven) -> None:
    state = driven.state
    assert (state.phase, state.epoch, state.merging) == (Phase.TRAINING, 1, 0)
    assert all(admissions(driven, member, 1) == [True] for member in state.miners())
    assert all(member.ready_epoch == 0 for member in state.miners())
    driven.run_ops(0, 0)
    merged(driven)
    assert (state.epoch, state.merging, state.audits.sealed) == (1, None, 1)
    assert all(member.ready_epoch == 1 and member.joined for member in state.miners())
    driven.run_ops(0, 1)
    assert state.current.closed_steps == 1


def test_one_merge_is_under_way_at_a_time(driven: Driven) -> None:
    state = driven.state
    train(driven)
    assert (state.phase, state.epoch, state.merging) == (Phase.MERGING, 1, 0)
    early = state.miners()[0]
    sizes = state.part_bytes[early.stage]
    parts = (StoredObject(key=f"d/{n}", digest="1" * 64, size=size) for n, size in enumerate(sizes))
    driven.say(early, reports=[Delta(epoch=1, parts=tuple(parts))])
    assert early.hotkey in state.epochs[1].merges[early.stage].early
    merged(driven)
    assert (state.phase, state.epoch, state.merging) == (Phase.TRAINING, 2, 1)
    assert early.hotkey in state.epochs[1].merges[early.stage].deltas


def test_what_is_not_merged_in_time_is_no_start(driven: Driven) -> None:
    state = driven.state
    late, *others = state.miners()
    driven.news(late)
    driven.give(*others)
    driven.commit(late)
    driven.run_ops(0, 0)
    driven.wait(state.deadlines.merge.seconds + 1)
    assert admissions(driven, late, 1) == [False]
    first, second = state.current.lives[late.hotkey]
    assert (first.void, first.carries, second.void, second.carries) == (True, True, False, False)
    assert state.current.counted[late.hotkey] == 0
    driven.draw_mergers()
    driven.merge_all()
    driven.seal()
    train(driven)
    train(driven)
    record = merged(driven)
    lives = {miner.hotkey: miner.lives for miner in record.miners}
    assert [(life.void, life.began) for life in lives[late.hotkey]] == [(True, ()), (False, ())]
    assert all(lives[other.hotkey][0].began for other in others)


def left_out_by_mergers(driven: Driven, named: Member, why: LeftOut = LeftOut.NOT_FINITE) -> None:
    """All contribute, and the mergers of every part of its stage leave one contribution out."""
    driven.give_all()
    driven.draw_mergers()
    driven.news(named)
    for stage, merge in enumerate(driven.state.epochs[0].merges):
        left_out = {named.hotkey: why} if stage == named.stage else {}
        for part, each in enumerate(merge.parts):
            for hotkey in list(each.mergers):
                driven.merge(driven.state.members[hotkey], stage, part, left_out=left_out)


def test_what_the_merge_leaves_out_is_no_start(driven: Driven) -> None:
    state = driven.state
    false = state.miners()[0]
    left_out_by_mergers(driven, false)
    parts = len(state.epochs[0].merges[false.stage].parts)
    assert len(driven.coordinator.disputed_parts()) == parts > 1
    driven.remerge(false.stage, 0, epoch=0, left_out={false.hotkey: LeftOut.NOT_FINITE})
    assert not driven.coordinator.disputed_parts()
    assert admissions(driven, false, 1) == [False]
    assert state.current.lives[false.hotkey][0].void
    for copy in driven.coordinator.unread_copies():
        driven.read(copy)
    assert not any(member.charged for member in state.miners())
    assert state.epochs[0].merges[false.stage].ready


def test_mergers_who_lie_together_take_no_start(driven: Driven) -> None:
    state = driven.state
    honest = state.miners()[0]
    left_out_by_mergers(driven, honest)
    liars = list(state.epochs[0].merges[honest.stage].parts[0].mergers)
    driven.remerge(honest.stage, 0, epoch=0)
    assert admissions(driven, honest, 1) == []
    assert not state.current.lives[honest.hotkey][0].void
    assert all(state.members[hotkey].charged for hotkey in liars)


def test_who_goes_against_the_others_has_its_own_start_all_the_same(driven: Driven) -> None:
    state = driven.state
    false = state.miners()[0]
    left_out_by_mergers(driven, false, LeftOut.OPPOSED)
    assert not driven.coordinator.disputed_parts()
    assert admissions(driven, false, 1) == []
    assert not state.current.lives[false.hotkey][0].void


def test_the_record_has_the_anchor_and_what_own_starts_are_made_of(driven: Driven) -> None:
    first = merged(driven)
    assert not any(life.began for miner in first.miners for life in miner.lives)
    train(driven)
    record = merged(driven)
    given = {delta.miner: delta.parts for delta in first.deltas}
    assert {miner.hotkey: miner.lives[0].began for miner in record.miners} == given
    assert sorted({base.epoch for base in record.bases}) == [0, 1, 2]


def test_who_joins_takes_the_anchor_and_the_merge_after_it(driven: Driven) -> None:
    joiner = driven.join(7)
    assert any(isinstance(event, LoadBase) and event.epoch == 0 for event in driven.news(joiner))
    driven.give(*[member for member in driven.state.miners() if member is not joiner])
    driven.draw_mergers()
    driven.merge_all()
    assert not driven.news(joiner)
    driven.say(joiner, reports=[Ready(epoch=0, digest=f"{joiner.stage:064x}")])
    news = driven.news(joiner)
    assert [e.carries for e in news if isinstance(e, Admit) and e.epoch == 1] == [False]
    assert any(isinstance(event, MergeReady) and event.epoch == 0 for event in news)


def test_who_loses_its_disk_begins_from_the_anchor(driven: Driven) -> None:
    merged(driven)
    store_bases(driven, 1)
    lost = driven.state.miners()[0]
    driven.commit(lost)
    driven.join(0)
    driven.news(lost)
    driven.say(lost, reports=[Ready(epoch=0, digest=f"{lost.stage:064x}")])
    assert admissions(driven, lost, 1) == [False]


def test_audits_of_an_epoch_stay_open_while_its_base_is_the_anchor(driven: Driven) -> None:
    merged(driven)
    store_bases(driven, 1)
    driven.wait(driven.state.spec.audit.deadline_s + 1)
    assert driven.state.auditable(0) is not None
    train(driven)
    driven.wait(1.0)
    assert driven.state.epoch == 2
    assert driven.state.auditable(0) is None


def train_without_end(driven: Driven, monkeypatch: pytest.MonkeyPatch, *late: Member) -> None:
    """All steps of the current epoch, to whose last version these do not commit."""

    def commit(member: Member) -> None:
        ended = driven.state.current.lives[member.hotkey][-1].next_step == SCHEDULE["steps"]
        if not (ended and member in late):
            Driven.commit(driven, member)

    with monkeypatch.context() as patched:
        patched.setattr(driven, "commit", commit)
        train(driven)


def test_who_commits_after_the_contributions_are_fixed_has_no_own_start(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = driven.state
    merged(driven)
    late, other = (state.miners(stage)[0] for stage in range(2))
    state.slow_givers[late.owner] = 2
    train_without_end(driven, monkeypatch, late, other)
    driven.news(late)
    driven.give(*[member for member in state.miners() if member not in (late, other)])
    driven.wait(6.0)
    assert (state.epoch, state.current.merges[late.stage].fixed) == (1, True)
    driven.commit(late)
    driven.wait(state.deadlines.merge.seconds)
    assert state.epoch == 2
    assert admissions(driven, late, 2) == [False]
    assert late.hotkey not in state.current.carried


def test_who_does_not_commit_holds_up_one_epoch_and_not_each(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = driven.state
    merged(driven)
    late = state.miners()[0]
    monkeypatch.setattr(patience, "sent_s", lambda *_: 100.0)
    train_without_end(driven, monkeypatch, late)
    driven.wait(6.0)
    assert (state.phase, state.epoch) == (Phase.MERGING, 1)
    driven.wait(state.deadlines.merge.seconds)
    assert (state.phase, state.epoch) == (Phase.TRAINING, 2)
    assert state.slow_givers[late.owner] > 1


def test_the_next_epoch_waits_shortly_for_the_commit_of_who_was_slow(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = driven.state
    merged(driven)
    late = state.miners()[0]
    state.slow_givers[late.owner] = 2
    train_without_end(driven, monkeypatch, late)
    late.replay_s = 100.0
    driven.wait(4.0)
    assert (state.phase, state.epoch) == (Phase.MERGING, 1)
    driven.wait(2.0)
    assert (state.phase, state.epoch) == (Phase.TRAINING, 2)


def test_a_stage_whose_replicas_are_all_late_names_none_as_slow(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = driven.state
    merged(driven)
    train_without_end(driven, monkeypatch, *state.miners(0))
    driven.wait(state.deadlines.merge.seconds + 1)
    assert state.epoch == 2
    assert not state.slow_givers


def test_who_lost_a_life_by_a_late_contribution_then_waits_for_its_merge(driven: Driven) -> None:
    state = driven.state
    late, *others = state.miners()
    driven.give(*others)
    driven.commit(late)
    driven.wait(state.deadlines.merge.seconds + 1)
    assert state.current.lives[late.hotkey][0].void
    driven.draw_mergers()
    driven.merge_all()
    driven.seal()
    driven.news(late)
    train(driven)
    assert (state.epoch, state.merging) == (2, 1)
    assert all(member.joined == (2, 0) for member in others)
    driven.wait(1.0)
    assert admissions(driven, late, 2) == []
    merged(driven)
    assert admissions(driven, late, 2) == [True]
