"""Mergers that lie, alone and together, late and silent ones, and who is named for it."""

from __future__ import annotations

import pytest

from iota.protocol.events import Admit, MergeReady
from iota.protocol.merges import LeftOut
from iota.protocol.receipts import OpKind
from orchestrator.coordinator import Resumed
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merger_draws import MAX_MERGERS, draw_block
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import Driven
from tests.support.small_spec import small_spec


@pytest.fixture
def driven() -> Driven:
    """All pseudo-gradients of an epoch are there, at three stages of two replicas, and mergers are drawn."""
    found = until_merge()
    found.give_all()
    found.draw_mergers()
    return found


def until_merge(replicas: int = 2, **outer: object) -> Driven:
    """The steps of an epoch are closed."""
    schedule = {"epochs": 2, "steps": 1, "microbatches": replicas}
    spec = small_spec(layout={"cuts": [1, 1, 1], "replicas": replicas}, schedule=schedule, outer=outer)
    found = Driven.training(spec)
    for index in range(replicas):
        found.run_microbatch(0, index)
    assert found.state.phase is Phase.MERGING
    return found


def mergers(driven: Driven, stage: int = 0, part: int = 0) -> list[Member]:
    return [driven.state.members[h] for h in driven.state.current.merges[stage].parts[part].mergers]


def named(driven: Driven, member: Member) -> bool:
    return any(member.hotkey in text for text in driven.state.incidents.named)


def test_one_lying_merger_is_named_and_the_honest_one_is_not(driven: Driven) -> None:
    honest, liar = mergers(driven)
    driven.merge(honest, 0, digest=7)
    driven.merge(liar, 0, digest=8)
    assert [(a.stage, a.part) for a in driven.coordinator.disputed_parts()] == [(0, 0)]
    assert "merges part 0 of stage 0 itself" in str(driven.coordinator.status()["waiting"])
    driven.remerge(digest=7)
    part = driven.state.current.merges[0].parts[0]
    assert part.agreed is not None
    assert part.agreed.stored.key == "merged/orchestrator"
    assert (named(driven, liar), named(driven, honest)) == (True, False)
    assert not driven.coordinator.disputed_parts()


def test_three_of_four_mergers_that_agree_on_a_lie_do_not_have_the_honest_one_named() -> None:
    driven = until_merge()
    driven.give_all()
    driven.draw_mergers()
    honest, liar = mergers(driven)
    driven.lose(liar)  # so that others are drawn, who are the liar's friends
    driven.merge(honest, 0, digest=7)
    driven.merge(mergers(driven)[2], 0, digest=8)
    driven.remerge(digest=7)
    assert not named(driven, honest)
    assert named(driven, mergers(driven)[2])


def test_a_charged_merger_is_drawn_no_more_and_costs_one_merge_of_the_orchestrator() -> None:
    driven = until_merge(part_elements=1000)
    driven.give_all()
    driven.draw_mergers()
    liar = max(driven.state.miners(), key=lambda member: len(member.merging))
    own = sorted(liar.merging)
    assert len(own) > 3
    for stage, number in own:
        driven.merge(liar, stage, number, digest=8)
        for other in mergers(driven, stage, number):
            if other is not liar:
                driven.merge(other, stage, number, digest=7)
    assert len(driven.coordinator.disputed_parts()) == len(own)
    driven.remerge(*own[0])
    assert not driven.coordinator.disputed_parts(), "without the liar's copies the others need no merge"
    for stage, merge in enumerate(driven.state.current.merges):
        for number, part in enumerate(merge.parts):
            if (stage, number) not in own:
                assert liar.hotkey not in part.mergers
    driven.merge_all()
    assert driven.state.current.unmerged == 0
    assert liar.charged


def test_copies_that_leave_out_others_differ(driven: Driven) -> None:
    one, two = mergers(driven)
    accused = driven.state.miners(0)[0].hotkey
    driven.merge(one, 0, digest=7)
    driven.merge(two, 0, digest=7, left_out={accused: LeftOut.OUT_OF_BOUNDS})
    assert driven.coordinator.disputed_parts()
    driven.remerge(digest=7)
    assert named(driven, two)
    record = driven.coordinator.state.current.merges[0].left_out
    assert not record


def test_what_both_leave_out_is_charged_to_its_maker(driven: Driven) -> None:
    poisoner = driven.state.miners(0)[0]
    for member in mergers(driven):
        driven.merge(member, 0, left_out={poisoner.hotkey: LeftOut.NOT_FINITE})
    driven.merge_all()
    record = driven.seal()
    assert [(r.miner, r.stage, r.why, r.parts) for r in record.left_out] == [
        (poisoner.hotkey, 0, LeftOut.NOT_FINITE, (0,))
    ]
    assert named(driven, poisoner)


def test_a_copy_without_its_receipt_is_not_taken(driven: Driven) -> None:
    one, two = mergers(driven)
    driven.merge(one, 0)
    driven.merge(two, 0, signed=False)
    assert driven.state.current.merges[0].parts[0].agreed is None
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    driven.merge(mergers(driven)[2], 0)
    assert driven.state.current.merges[0].parts[0].agreed is not None


def all_merge_but(driven: Driven, silent: Member) -> None:
    """All parts are merged rightly, without the copies of one merger."""
    for _ in range(MAX_MERGERS):
        for stage in range(driven.state.stages):
            for member in mergers(driven, stage):
                if member is not silent:
                    driven.merge(member, stage)
        driven.wait(driven.state.deadlines.merge.seconds + 1)


def silent_newcomer() -> tuple[Driven, Member]:
    """All parts are merged, without the copy of one merger of part 0 that took no part in the steps.

    It is drawn as one whose work counted in the epoch before.
    """
    for number in range(50):
        driven = until_merge()
        silent = driven.join(9)
        silent.worked = 0
        driven.give_all()
        driven.draw_mergers(f"{number:064x}")
        if silent in mergers(driven):
            break
    all_merge_but(driven, silent)
    assert driven.state.current.unmerged == 0
    return driven, silent


def test_a_receipt_of_a_merge_that_is_settled_is_sealed_also_where_the_next_epoch_has_begun() -> None:
    driven, silent = silent_newcomer()
    driven.next_base()
    assert driven.state.epoch == 1
    receipt = driven.receipt(silent, OpKind.MERGE, 0, 0).model_copy(update={"epoch": 0, "stage": 0})
    driven.say(silent, receipts=[receipt])
    driven.wait(0.0, driven.state.head.block + 1)
    [mine] = [miner for miner in driven.record(0).miners if miner.hotkey == silent.hotkey]
    assert (mine.first_receipt, mine.last_receipt) == (1, 1)
    assert [life.joined for life in mine.lives] == [driven.state.spec.schedule.steps]


def test_a_receipt_after_the_seal_does_not_change_the_record() -> None:
    driven, silent = silent_newcomer()
    sealed = driven.seal()
    receipt = driven.receipt(silent, OpKind.MERGE, 0, 0).model_copy(update={"epoch": 0, "stage": 0})
    driven.say(silent, receipts=[receipt])
    assert driven.record(0) == sealed
    assert silent.hotkey not in {miner.hotkey for miner in sealed.miners}


def test_a_merger_cannot_name_who_gave_nothing_to_the_part(driven: Driven) -> None:
    one = mergers(driven)[0]
    driven.merge(one, 0, left_out={driven.state.miners(2)[0].hotkey: LeftOut.UNREADABLE})
    assert not driven.state.current.merges[0].parts[0].results


def test_silent_mergers_hold_the_run_up_for_some_deadlines_and_no_longer(driven: Driven) -> None:
    for _ in range(MAX_MERGERS + 1):
        driven.wait(driven.state.deadlines.merge.seconds + 1)
    parts = [part for merge in driven.state.current.merges for part in merge.parts]
    assert all(len(part.mergers) == MAX_MERGERS for part in parts)
    assert len(driven.coordinator.disputed_parts()) == len(parts)
    for assign in driven.coordinator.disputed_parts():
        driven.remerge(assign.stage, assign.part)
    assert driven.state.current.unmerged == 0
    assert all(isinstance(driven.news(m)[-1], MergeReady) for m in driven.state.miners())


def test_the_orchestrators_copy_is_used_where_all_mergers_lie(driven: Driven) -> None:
    one, two = mergers(driven)
    driven.merge(one, 0, digest=8)
    driven.merge(two, 0, digest=9)
    driven.remerge(digest=7)
    assert driven.state.current.merges[0].ready is not None
    assert driven.state.current.merges[0].ready.parts[0].key == "merged/orchestrator"
    assert one.charged
    assert two.charged


def test_a_merge_of_the_orchestrator_that_is_not_asked_for_changes_nothing(driven: Driven) -> None:
    driven.remerge(digest=8)
    assert driven.state.current.merges[0].parts[0].agreed is None
    assert driven.state.totals.unfit == 1


# ---- the draw ------------------------------------------------------------------------------------


def test_mergers_are_drawn_by_a_block_that_nobody_knew_when_the_last_step_closed() -> None:
    driven = until_merge()
    driven.wait(1, block=draw_block(driven.state) - 1, block_hash="a" * 64)
    driven.give_all()
    assert not any(merge.parts for merge in driven.state.current.merges)
    assert "mergers are drawn by block" in str(driven.coordinator.status()["waiting"])
    driven.wait(1, block=draw_block(driven.state), block_hash="b" * 64)
    parts = [part for merge in driven.state.current.merges for part in merge.parts]
    assert parts
    assert all(part.seed.startswith("b" * 64) for part in parts)


def test_a_part_that_was_assigned_while_nobody_was_there_is_given_to_who_comes_next() -> None:
    driven = until_merge(replicas=1)
    driven.give_all()
    one, two, three = driven.state.miners()
    for member in (one, two, three):
        driven.lose(member)
    driven.draw_mergers()
    assert not any(mergers(driven, stage) for stage in range(3))
    driven.come_back(one)
    assert all(mergers(driven, stage) == [one] for stage in range(3))
    driven.come_back(two)
    assert all(mergers(driven, stage) == [one, two] for stage in range(3))
    driven.come_back(three)
    assert all(mergers(driven, stage) == [one, two] for stage in range(3))


def test_who_gives_last_does_not_choose_the_block() -> None:
    driven = until_merge()
    *others, last = driven.state.miners()
    driven.give(*others)
    driven.wait(1, block=draw_block(driven.state), block_hash="b" * 64)
    driven.wait(1, block=draw_block(driven.state) + 1, block_hash="c" * 64)
    driven.give(last)
    assert all(part.seed.startswith("b" * 64) for m in driven.state.current.merges for part in m.parts)


def test_a_chain_that_stands_still_holds_the_merge_up_for_a_bounded_time() -> None:
    driven = until_merge()
    driven.give_all()
    driven.wait(driven.state.limits.max_s + 1)
    assert all(merge.parts for merge in driven.state.current.merges)
    assert any("no new block came" in text for text in driven.state.incidents.named)


# ---- pseudo-gradients that do not come --------------------------------------------------------------


def test_a_stage_whose_only_replica_never_delivers_keeps_its_base_and_the_run_goes_on() -> None:
    driven = until_merge(replicas=1)
    silent, *others = driven.state.miners()
    driven.give(*others)
    driven.draw_mergers()
    driven.merge_all()
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    merge = driven.state.current.merges[silent.stage]
    assert merge.ready is not None
    assert merge.ready.parts == ()
    assert named(driven, silent)
    record = driven.seal()
    assert [(r.miner, r.why, r.parts) for r in record.left_out] == [(silent.hotkey, LeftOut.MISSING, ())]


def merged_without_one() -> tuple[Driven, Member, list[Member]]:
    """A merged run, the miner that gave no pseudo-gradient by the deadline, and the others."""
    driven = until_merge()
    silent, *others = driven.state.miners()
    driven.give(*others)
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    driven.draw_mergers()
    driven.merge_all()
    return driven, silent, others


def test_a_missing_pseudo_gradient_is_charged_and_the_others_merge() -> None:
    driven, silent, _ = merged_without_one()
    assert len(driven.state.current.merges[silent.stage].parts[0].assign.contributions) == 1
    record = driven.seal()
    assert [(r.miner, r.why) for r in record.left_out] == [(silent.hotkey, LeftOut.MISSING)]
    assert {m.moments for m in record.miners} == {None}, "no epoch came before"


def test_who_gave_no_pseudo_gradient_is_told_to_begin_with_zero_moments_and_the_record_says_so() -> None:
    driven, silent, others = merged_without_one()
    driven.next_base()
    for member in (silent, *others):
        [admit] = [event for event in driven.news(member) if isinstance(event, Admit) and event.epoch == 1]
        assert admit.carries is (member is not silent)
    assert driven.state.epochs[1].carried.keys() == {member.hotkey for member in others}


def test_a_replica_that_restarts_in_the_merge_has_one_deadline_more_and_not_two() -> None:
    driven = until_merge(replicas=1)
    alone = driven.state.miners(0)[0]
    limit = driven.state.deadlines.merge.seconds
    driven.lose(alone)
    driven.wait(limit + 1)
    assert not driven.state.current.merges[0].fixed, "nobody could go on without this stage"
    for _ in range(2):
        driven.come_back(alone)
        driven.wait(limit - 1)
        driven.lose(alone)
    driven.come_back(alone)
    driven.wait(3)
    assert driven.state.current.merges[0].fixed


def test_the_deadline_begins_again_with_the_orchestrator() -> None:
    driven = until_merge(replicas=1)
    driven.now += 1000
    driven.coordinator.apply(Resumed(at=driven.now))
    driven.wait(1)
    assert not any(merge.fixed for merge in driven.state.current.merges)


def test_mergers_cannot_say_that_a_contribution_is_missing(driven: Driven) -> None:
    part = driven.state.current.merges[0].parts[0]
    victim = part.assign.contributions[0].hotkey
    for member in mergers(driven):
        driven.merge(member, 0, left_out={victim: LeftOut.MISSING})
    assert part.agreed is None
