"""Mergers are held to what they sign: unreported, after the part is agreed, and where the store lost it."""

from __future__ import annotations

import pytest

from iota.protocol.merges import LeftOut, merge_output
from iota.protocol.messages import BaseStored
from iota.protocol.receipts import OpKind
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import Driven
from tests.unit.test_merge_disputes import (
    all_merge_but,
    mergers,
    named,
    silent_newcomer,
    until_merge,
)


@pytest.fixture
def driven() -> Driven:
    """The pseudo-gradients of three stages are there, and the mergers of their parts are drawn."""
    found = until_merge()
    found.give_all()
    found.draw_mergers()
    return found


def lie(driven: Driven, liar: Member, digest: int = 8) -> None:
    """Sign another result of part 0 of stage 0 of epoch 0 than was agreed on, and report nothing."""
    output = merge_output(f"{digest:064x}", {})
    receipt = driven.receipt(liar, OpKind.MERGE, 0, 0).model_copy(
        update={"epoch": 0, "stage": 0, "output": output}
    )
    driven.say(liar, receipts=[receipt])


def test_a_merger_that_signs_false_receipts_and_reports_nothing_is_drawn_no_more(driven: Driven) -> None:
    liar, _ = mergers(driven)
    own = sorted(liar.merging)
    for stage, number in own:
        driven.merge(liar, stage, number, digest=8, reported=False)
    all_merge_but(driven, liar)
    assert len(driven.coordinator.disputed_parts()) == len(own)
    driven.remerge(*own[0])
    assert liar.charged
    assert driven.state.current.merges[own[0][0]].ready is not None
    assert [m.charged for m in driven.state.miners()].count(True) == 1


def test_a_false_receipt_after_its_part_is_agreed_is_looked_at_also_in_the_next_epoch() -> None:
    driven, liar = silent_newcomer()
    driven.next_base()
    assert driven.state.phase is Phase.TRAINING
    lie(driven, liar)
    assert [(a.epoch, a.stage, a.part) for a in driven.coordinator.disputed_parts()] == [(0, 0, 0)]
    driven.wait(0.0, driven.state.head.block + 1)  # the seal does not save it
    driven.remerge(epoch=0)
    assert (liar.charged, [m.charged for m in driven.state.miners()].count(True)) == (True, 1)
    assert f"epoch 0 stage 0: {liar.hotkey} merged part 0" in str(driven.state.incidents.named)
    assert not driven.coordinator.disputed_parts()


def test_who_signs_late_what_two_others_lied_about_is_not_charged_and_they_are() -> None:
    driven, honest = silent_newcomer()
    lie(driven, honest)
    driven.remerge(digest=8)
    liars = [h for h in mergers(driven) if h.hotkey in driven.state.current.merges[0].parts[0].results]
    assert len(liars) == 2
    assert (honest.charged, [liar.charged for liar in liars]) == (False, [True, True])


def test_a_false_receipt_of_a_part_that_the_orchestrator_merged_is_charged_at_once() -> None:
    driven, liar = silent_newcomer()
    part = driven.state.current.merges[0].parts[0]
    part.remerged = part.agreed
    lie(driven, liar)
    assert liar.charged


def test_a_part_that_is_looked_at_is_forgotten_with_its_epoch() -> None:
    driven, liar = silent_newcomer()
    lie(driven, liar)
    driven.seal()
    for member in driven.state.miners():
        base = BaseStored(epoch=1, digest=f"{member.stage:064x}", parts=())
        driven.say(member, reports=[base])
    driven.wait(driven.state.spec.audit.deadline_s + 1)
    assert driven.state.audits.closed_epochs == [0]
    assert not driven.coordinator.disputed_parts()


# ---- what the store lost ----------------------------------------------------------------------------


def test_mergers_that_still_had_what_the_store_lost_are_not_charged(driven: Driven) -> None:
    part = driven.state.current.merges[0].parts[0]
    one, two = mergers(driven)
    lost = next(c.hotkey for c in part.assign.contributions if c.hotkey != one.hotkey)
    driven.merge(one, 0, digest=7)
    driven.merge(two, 0, digest=8)
    driven.remerge(digest=9, left_out={lost: LeftOut.MISSING})
    assert part.agreed is not None
    assert part.agreed.stored.key == "merged/orchestrator"
    assert (one.charged, two.charged) == (False, False)
    assert not named(driven, one)


def test_two_that_sign_missing_do_not_have_a_slow_honest_merger_contradict_the_record() -> None:
    driven = until_merge()
    driven.give_all()
    driven.draw_mergers()
    one, slow = mergers(driven)
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    two, part = mergers(driven)[2], driven.state.current.merges[0].parts[0]
    victim = part.assign.contributions[0].hotkey
    for liar in (one, two):
        driven.merge(liar, 0, digest=8, left_out={victim: LeftOut.MISSING})
    driven.merge(slow, 0, digest=7)
    driven.remerge(digest=7)
    assert part.agreed is not None
    assert part.agreed.output == part.outputs[slow.hotkey]
    assert (one.charged, two.charged, slow.charged) == (True, True, False)
