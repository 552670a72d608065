"""Which verdicts of other validators count, and who is silenced."""

from __future__ import annotations

import random
from dataclasses import replace

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from iota.protocol.messages import AuditKind, Outcome
from iota.spec import AuditSpec
from tests.support.small_runs import small_run
from validator.core.links import LinkChain
from validator.core.pool import EpochFacts, Judgement, Task, findings
from validator.core.segments import own_segment, public_turns
from validator.core.vesting import Findings, hidden_epochs

ME, OTHER, LIAR, MINER = "me", "other", "liar", "miner"
EPOCHS = 48
SPEC = small_run(
    schedule={"epochs": EPOCHS}, audit=AuditSpec(window=4, commit_every=1, window_steps=12, extra_every=4)
)
CHAINS = {v: LinkChain(blake3(v.encode()).digest(), EPOCHS) for v in (ME, OTHER, LIAR)}
SEGMENTS = (4, 8, 12)
"""Seqs of the COMMITs at their ends."""


def facts(epoch: int, *, present: bool = True, pooled: bool = True) -> EpochFacts:
    links = {v: chain.link(epoch) for v, chain in CHAINS.items() if present or v != ME}
    return EpochFacts(f"{epoch:064x}", links, {MINER: SEGMENTS}, present, pooled)


ALL = {epoch: facts(epoch) for epoch in range(EPOCHS)}
LATE = {epoch: facts(epoch, present=epoch >= 6) for epoch in range(EPOCHS)}
"""As a validator sees it that joined in epoch 6."""


def said(
    validator: str, outcome: Outcome, epoch: int = 0, audit: AuditKind = AuditKind.OP, seq: int = 2
) -> Judgement:
    return Judgement(validator, Task(epoch, MINER, audit, seq), outcome)


def by_turn(epoch: int) -> set[int]:
    """The seqs of the miner's segments that the public draw names."""
    turns = public_turns(SPEC, epoch, MINER, lambda number: facts(number).drawable)
    return {SEGMENTS[turn.at] for turn in turns}


def of_own(validator: str, epoch: int, *, certain: bool = True) -> int | None:
    """The seq of the segment that the own draw of a validator names; with `certain` the one it would."""
    link = CHAINS[validator].link(epoch)
    at = own_segment(SPEC, f"{epoch:064x}", link, epoch, MINER, len(SEGMENTS), certain=certain)
    return None if at is None else SEGMENTS[at]


def own_epoch(validator: str, *, drawn: bool = True, first: int = 1) -> int:
    """The first epoch in which the own draw of a validator names a segment that the public one does not."""
    return next(
        epoch
        for epoch in range(first, EPOCHS - 1)
        if (of_own(validator, epoch, certain=False) is not None) is drawn
        and of_own(validator, epoch) not in by_turn(epoch)
    )


def segment(validator: str, outcome: Outcome, epoch: int, seq: int | None = None) -> Judgement:
    """Of the segment of the validator's own draw, or of that with `seq`."""
    return said(
        validator, outcome, epoch, AuditKind.SEGMENT, of_own(validator, epoch) if seq is None else seq
    )


def found(*judgements: Judgement, epochs: dict[int, EpochFacts] | None = None) -> Findings:
    return findings(SPEC, ME, ALL if epochs is None else epochs, judgements)


# ---- fails ------------------------------------------------------------------------------------


def test_a_fail_of_another_counts_only_once_it_is_confirmed_here() -> None:
    theirs = said(OTHER, Outcome.FAIL)
    assert found(theirs).failed == frozenset()
    assert found(theirs, said(ME, Outcome.INCONCLUSIVE)).failed == frozenset()
    confirmed = found(theirs, said(ME, Outcome.FAIL))
    assert (confirmed.failed, confirmed.silenced) == ({(0, MINER)}, {})


def test_a_refuted_fail_silences_its_author_for_a_window_before_and_after() -> None:
    epoch = own_epoch(LIAR, first=4)
    passed = segment(LIAR, Outcome.PASS, epoch)
    for lie, counts in ((epoch, False), (epoch - 3, False), (epoch + 3, False), (epoch + 4, True)):
        lies = (said(LIAR, Outcome.FAIL, lie), said(ME, Outcome.PASS, lie))
        result = found(passed, *lies)
        assert (result.silenced, result.failed) == ({LIAR: (lie,)}, frozenset())
        assert bool(result.passed) is counts, lie


def test_a_pass_against_an_own_fail_of_the_same_task_silences_its_author() -> None:
    result = found(said(ME, Outcome.FAIL), said(LIAR, Outcome.PASS), said(OTHER, Outcome.FAIL))
    assert (result.failed, result.silenced) == ({(0, MINER)}, {LIAR: (0,)})


def test_nobody_is_silenced_for_what_it_was_not_delivered_and_it_counts_through_an_own_verdict() -> None:
    theirs = said(OTHER, Outcome.UNDELIVERED)
    assert found(theirs, said(ME, Outcome.PASS)) == Findings()
    assert found(theirs).undelivered == frozenset()
    assert found(theirs, said(ME, Outcome.UNDELIVERED)).undelivered == {(0, MINER)}


# ---- passes -----------------------------------------------------------------------------------


def test_a_pass_of_another_vests_if_its_own_draw_demands_it_and_for_no_other_segment() -> None:
    epoch = own_epoch(OTHER)
    seq = of_own(OTHER, epoch)
    assert found(segment(OTHER, Outcome.PASS, epoch)).passed == {(epoch, MINER)}
    for wrong in set(SEGMENTS) - {seq} - by_turn(epoch):
        assert not found(segment(OTHER, Outcome.PASS, epoch, wrong)).passed
    assert not found(segment(OTHER, Outcome.PASS, own_epoch(OTHER, drawn=False))).passed
    assert not found(said(OTHER, Outcome.PASS, epoch)).passed, "an op vests nothing"


def test_a_pass_of_any_validator_vests_where_the_public_draw_demands_it() -> None:
    epoch = next(epoch for epoch in range(EPOCHS) if by_turn(epoch))
    [seq] = by_turn(epoch)
    for validator in (ME, OTHER, LIAR):
        assert found(segment(validator, Outcome.PASS, epoch, seq)).passed == {(epoch, MINER)}


def test_who_knows_no_epochs_before_counts_at_least_what_others_count() -> None:
    for epoch in range(1, EPOCHS):
        for seq in SEGMENTS:
            known = found(segment(OTHER, Outcome.PASS, epoch, seq)).passed
            alone = {number: ALL[number] for number in (epoch - 1, epoch)}
            assert known <= found(segment(OTHER, Outcome.PASS, epoch, seq), epochs=alone).passed


def test_a_pass_of_a_validator_without_a_checked_link_vests_nothing() -> None:
    epoch = own_epoch(OTHER)
    passed = segment(OTHER, Outcome.PASS, epoch)
    assert not found(passed, epochs={epoch: EpochFacts("00", {}, {MINER: SEGMENTS}, True, True)}).passed
    assert not findings(SPEC, ME, {}, [passed]).passed


def test_the_last_epoch_has_a_segment_audited_for_certain() -> None:
    assert found(segment(OTHER, Outcome.PASS, EPOCHS - 1)).passed == {(EPOCHS - 1, MINER)}


def test_the_epoch_after_an_undecided_segment_or_undelivered_evidence_has_one_for_certain() -> None:
    epoch = own_epoch(OTHER, drawn=False)
    passed = segment(OTHER, Outcome.PASS, epoch)
    for outcome in (Outcome.INCONCLUSIVE, Outcome.UNSHOWN):
        assert found(passed, segment(OTHER, outcome, epoch - 1, SEGMENTS[0])).passed == {(epoch, MINER)}
    assert found(passed, said(OTHER, Outcome.UNDELIVERED, epoch - 1)).passed == {(epoch, MINER)}
    assert not found(passed, said(OTHER, Outcome.INCONCLUSIVE, epoch - 1)).passed, "an op owes nothing"
    assert not found(passed, said(LIAR, Outcome.UNDELIVERED, epoch - 1)).passed, "others owe nothing"


# ---- evidence that is gone ----------------------------------------------------------------------


def test_an_own_unshown_op_leaves_its_epoch_undecided_and_an_own_pass_of_a_segment_decides_it() -> None:
    epoch = own_epoch(ME)
    gone = said(ME, Outcome.UNSHOWN, epoch)
    assert found(gone, segment(OTHER, Outcome.PASS, epoch)).undecided == {(epoch, MINER)}
    assert not found(gone, segment(ME, Outcome.PASS, epoch)).undecided
    for other in (said(ME, Outcome.INCONCLUSIVE, epoch), replace(gone, validator=OTHER)):
        assert not found(other).undecided


def test_a_word_whose_evidence_is_gone_leaves_its_epoch_undecided() -> None:
    assert found(said(ME, Outcome.UNSHOWN, 3, AuditKind.WORD, 1)).undecided == {(3, MINER)}


def test_a_hidden_segment_leaves_epochs_of_work_before_it_undecided_whoever_drew_it() -> None:
    """Whatever passed there: so many epochs cost more than is saved in those between two draws."""
    count = hidden_epochs(SPEC.window_epochs, SPEC.audit.extra_every)
    for author in (ME, OTHER):
        epoch = own_epoch(author, first=6)
        seq = of_own(author, epoch)
        gone = segment(ME, Outcome.UNSHOWN, epoch, seq)
        before = {(number, MINER) for number in range(epoch - count + 1, epoch + 1)}
        assert found(gone, segment(OTHER, Outcome.UNSHOWN, epoch, seq)).undecided == before
        rested = {**ALL, epoch - 1: replace(facts(epoch - 1), segments={MINER: ()})}
        resting = found(gone, epochs=rested).undecided
        assert (epoch - 1, MINER) not in resting
        assert len(resting) == count


def test_a_pass_of_the_own_examination_clears_a_segment_and_another_segments_does_not() -> None:
    epoch = own_epoch(OTHER, first=6)
    seq = of_own(OTHER, epoch)
    theirs = segment(OTHER, Outcome.UNSHOWN, epoch, seq)
    assert not found(theirs).undecided
    assert not found(theirs, segment(ME, Outcome.PASS, epoch, seq)).undecided
    mine = segment(ME, Outcome.UNSHOWN, epoch, seq)
    others = [segment(ME, Outcome.PASS, epoch, each) for each in SEGMENTS if each != seq]
    assert found(theirs, mine, *others).undecided


def test_an_unshown_segment_that_nobody_drew_costs_nothing() -> None:
    for epoch in range(1, EPOCHS - 1):
        drawn = by_turn(epoch) | {of_own(v, epoch, certain=False) for v in (ME, OTHER, LIAR)}
        for seq in set(SEGMENTS) - drawn:
            assert not found(segment(ME, Outcome.UNSHOWN, epoch, seq)).undecided


# ---- epochs before the join --------------------------------------------------------------------


def test_before_its_join_a_validator_counts_what_most_of_those_say_who_took_part() -> None:
    assert found(said(OTHER, Outcome.FAIL), epochs=LATE).failed == frozenset(), "one of two"
    both = found(said(OTHER, Outcome.FAIL), said(LIAR, Outcome.FAIL), epochs=LATE)
    assert both.failed == {(0, MINER)}


def test_who_is_refuted_after_the_join_has_no_voice_in_the_window_before_it() -> None:
    lies = (said(LIAR, Outcome.FAIL, 6), said(ME, Outcome.PASS, 6))
    result = found(said(OTHER, Outcome.FAIL, 5), *lies, epochs=LATE)
    assert (result.failed, result.silenced) == ({(5, MINER)}, {LIAR: (6,)})


# ---- any verdicts ------------------------------------------------------------------------------

judgements = st.lists(
    st.builds(
        said,
        st.sampled_from([ME, OTHER, LIAR]),
        st.sampled_from(Outcome),
        st.integers(0, EPOCHS - 1),
        st.sampled_from([AuditKind.OP, AuditKind.SEGMENT, AuditKind.RECORDS]),
        st.sampled_from(SEGMENTS),
    ),
    max_size=25,
    unique_by=lambda j: (j.validator, j.task),
)


@given(judgements, st.booleans(), st.randoms())
def test_findings_do_not_depend_on_the_order_of_verdicts(
    given_: list[Judgement], late: bool, rng: random.Random
) -> None:
    own = [j for j in given_ if j.validator != ME or j.task.epoch >= 6] if late else given_
    shuffled = own[:]
    rng.shuffle(shuffled)
    assert found(*own, epochs=LATE if late else ALL) == found(*shuffled, epochs=LATE if late else ALL)


@given(judgements)
def test_nobody_fails_whom_this_validator_did_not_fail_itself(given_: list[Judgement]) -> None:
    own = {(j.task.epoch, MINER) for j in given_ if j.validator == ME and j.outcome is Outcome.FAIL}
    assert found(*given_).failed == own
    assert ME not in found(*given_).silenced
