"""Who is drawn to merge: those that worked and are in time, and others only where none of them is left."""

from __future__ import annotations

from orchestrator.coordinator import Joined
from tests.support.coordinators import Driven
from tests.support.workers import OWNER, RIVAL, certified_join, key
from tests.unit.test_coordinator_collusion import merging
from tests.unit.test_merge_disputes import mergers, until_merge


def drawn(driven: Driven) -> set[str]:
    """All mergers of all parts."""
    return {h for merge in driven.state.current.merges for part in merge.parts for h in part.mergers}


def test_members_without_work_do_not_hold_up_the_merge() -> None:
    driven = merging(OWNER, RIVAL)
    honest = set(driven.state.members)
    for number in range(40):
        worker = key(100 + number)
        request = certified_join(driven.state.spec.id, worker, key(200 + number))
        driven.coordinator.apply(Joined(at=driven.now, hotkey=worker.ss58, request=request))
    driven.draw_mergers()
    assert drawn(driven) <= honest
    driven.merge_all()
    assert driven.state.current.unmerged == 0


def test_who_missed_the_deadline_of_a_part_is_drawn_for_no_other_one_and_named_once() -> None:
    driven = until_merge(part_elements=100)
    driven.give_all()
    driven.draw_mergers()
    silent = mergers(driven)[0]
    before = set(silent.merging)
    for stage, merge in enumerate(driven.state.current.merges):
        for number in range(len(merge.parts)):
            for member in mergers(driven, stage, number):
                if member is not silent:
                    driven.merge(member, stage, number)
    assert len(before) > 5
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    driven.merge_all()
    assert driven.state.current.unmerged == 0
    assert silent.merging == before
    assert [silent.hotkey in text for text in driven.state.incidents.named].count(True) == 1


def test_where_all_mergers_are_slow_others_of_them_are_drawn() -> None:
    driven = until_merge()
    driven.give_all()
    driven.draw_mergers()
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert len(mergers(driven)) == 3
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert len(mergers(driven)) == 4
    assert not driven.coordinator.disputed_parts()
    for slow in mergers(driven)[:2]:
        driven.merge(slow, 0)
    assert driven.state.current.merges[0].ready is not None


def test_newcomers_merge_where_nobody_is_left_who_has_worked() -> None:
    driven = until_merge()
    driven.give_all()
    for member in driven.state.miners():
        driven.lose(member)
    newcomers = {driven.join(number).hotkey for number in (20, 21)}
    driven.draw_mergers()
    assert drawn(driven) == newcomers
    driven.merge_all()
    assert driven.state.current.unmerged == 0


def test_a_silent_newcomer_holds_up_the_merge_of_who_worked_alone_for_one_deadline() -> None:
    driven = until_merge()
    driven.give_all()
    alone, *others = driven.state.miners()
    for member in others:
        driven.lose(member)
    silent = driven.join(20)
    for number in range(21, 29):
        driven.join(number)
    driven.draw_mergers()
    assert mergers(driven)[0] is alone
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert len(driven.coordinator.disputed_parts()) == driven.state.stages
    assert not silent.charged


def test_who_missed_a_part_is_drawn_last_in_the_next_epochs_too() -> None:
    driven = until_merge(replicas=3)
    driven.give_all()
    driven.draw_mergers()
    silent = mergers(driven)[0]
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    for member in mergers(driven):
        if member is not silent:
            driven.merge(member, 0)
    driven.merge_all()
    driven.seal()
    for index in range(driven.state.spec.schedule.microbatches):
        driven.run_microbatch(0, index)
    driven.give_all()
    driven.draw_mergers()
    assert silent.hotkey not in drawn(driven)
