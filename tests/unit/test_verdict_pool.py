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
from validator.core.draw import draw, step_draw
from validator.core.links import LinkChain
from validator.core.pool import EpochFacts, Judgement, Task, findings
from validator.core.vesting import Findings

ME, OTHER, LIAR, MINER = "me", "other", "liar", "miner"
EPOCHS = 12
SPEC = small_run(schedule={"epochs": EPOCHS}, audit=AuditSpec(window=4))
CHAINS = {v: LinkChain(blake3(v.encode()).digest(), EPOCHS) for v in (ME, OTHER, LIAR)}
STEPS = (4, 8, 12)


def facts(epoch: int, *, present: bool = True, pooled: bool = True) -> EpochFacts:
    links = {v: chain.link(epoch) for v, chain in CHAINS.items() if present or v != ME}
    return EpochFacts(f"{epoch:064x}", links, {MINER: STEPS}, present, pooled)


ALL = {epoch: facts(epoch) for epoch in range(EPOCHS)}
LATE = {epoch: facts(epoch, present=epoch >= 6) for epoch in range(EPOCHS)}
"""As a validator sees it that joined in epoch 6."""


def said(
    validator: str, outcome: Outcome, epoch: int = 0, audit: AuditKind = AuditKind.OP, seq: int = 2
) -> Judgement:
    return Judgement(validator, Task(epoch, MINER, audit, seq), outcome)


def of_step(validator: str, epoch: int) -> tuple[bool, int]:
    """Whether the draw of a validator demands a STEP of the miner, and the seq of that STEP."""
    link = CHAINS[validator].link(epoch)
    drawn = step_draw(draw(SPEC.id, f"{epoch:064x}", link, epoch, MINER), SPEC.audit, len(STEPS))
    assert drawn.at is not None
    return drawn.step, STEPS[drawn.at]


def drawn_epoch(validator: str, *, drawn: bool = True, first: int = 1) -> int:
    return next(epoch for epoch in range(first, EPOCHS - 1) if of_step(validator, epoch)[0] is drawn)


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
    epoch = drawn_epoch(LIAR)
    passed = said(LIAR, Outcome.PASS, epoch, AuditKind.STEP, of_step(LIAR, epoch)[1])
    for lie, counts in ((epoch, False), (max(0, epoch - 3), False), (epoch + 3, False), (epoch + 4, True)):
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


def test_a_pass_of_another_vests_if_its_draw_demands_it_and_for_no_other_step() -> None:
    epoch = drawn_epoch(OTHER)
    seq = of_step(OTHER, epoch)[1]
    assert found(said(OTHER, Outcome.PASS, epoch, AuditKind.STEP, seq)).passed == {(epoch, MINER)}
    for wrong in set(STEPS) - {seq}:
        assert not found(said(OTHER, Outcome.PASS, epoch, AuditKind.STEP, wrong)).passed
    undrawn = drawn_epoch(OTHER, drawn=False)
    task = (undrawn, AuditKind.STEP, of_step(OTHER, undrawn)[1])
    assert not found(said(OTHER, Outcome.PASS, *task)).passed
    assert not found(said(OTHER, Outcome.PASS, epoch)).passed, "an op vests nothing"


def test_a_pass_of_a_validator_without_a_checked_link_vests_nothing() -> None:
    epoch = drawn_epoch(OTHER)
    passed = said(OTHER, Outcome.PASS, epoch, AuditKind.STEP, of_step(OTHER, epoch)[1])
    assert not found(passed, epochs={epoch: EpochFacts("00", {}, {MINER: STEPS}, True, True)}).passed
    assert not findings(SPEC, ME, {}, [passed]).passed


def test_the_last_epoch_has_a_step_audit_for_certain() -> None:
    seq = of_step(OTHER, EPOCHS - 1)[1]
    assert found(said(OTHER, Outcome.PASS, EPOCHS - 1, AuditKind.STEP, seq)).passed == {(EPOCHS - 1, MINER)}


def test_the_epoch_after_an_undecided_step_or_undelivered_evidence_has_one_for_certain() -> None:
    epoch = drawn_epoch(OTHER, drawn=False)
    passed = said(OTHER, Outcome.PASS, epoch, AuditKind.STEP, of_step(OTHER, epoch)[1])
    undecided = said(OTHER, Outcome.INCONCLUSIVE, epoch - 1, AuditKind.STEP, STEPS[0])
    assert found(passed, undecided).passed == {(epoch, MINER)}
    assert found(passed, said(OTHER, Outcome.UNDELIVERED, epoch - 1)).passed == {(epoch, MINER)}
    assert not found(passed, said(OTHER, Outcome.INCONCLUSIVE, epoch - 1)).passed, "an op owes nothing"
    assert not found(passed, said(LIAR, Outcome.UNDELIVERED, epoch - 1)).passed, "others owe nothing"


# ---- evidence that is gone ----------------------------------------------------------------------


def test_only_an_own_draw_leaves_work_undecided_and_an_own_pass_of_its_epoch_decides_it() -> None:
    epoch = drawn_epoch(ME)
    gone = replace(said(ME, Outcome.INCONCLUSIVE, epoch), lacks_evidence=True)
    step = (Outcome.PASS, epoch, AuditKind.STEP)
    assert found(gone, said(OTHER, *step, of_step(OTHER, epoch)[1])).undecided == {(epoch, MINER)}
    assert not found(gone, said(ME, *step, of_step(ME, epoch)[1])).undecided
    for other in (replace(gone, lacks_evidence=False), replace(gone, validator=OTHER)):
        assert not found(other).undecided


def test_a_word_whose_evidence_is_gone_leaves_its_epoch_undecided() -> None:
    gone = replace(said(ME, Outcome.INCONCLUSIVE, 3, AuditKind.WORD, 1), lacks_evidence=True)
    assert found(gone).undecided == {(3, MINER)}


def test_an_undecided_step_leaves_the_last_epoch_of_work_before_it_undecided_too() -> None:
    """Whatever passed there: two epochs cost more than is saved in those between two draws."""
    before, epoch = (drawn_epoch(ME, first=7), drawn_epoch(ME, first=8))
    assert epoch == before + 1
    gone = replace(said(ME, Outcome.INCONCLUSIVE, epoch, AuditKind.EPOCH, STEPS[-1]), lacks_evidence=True)
    passed = said(ME, Outcome.PASS, before, AuditKind.STEP, of_step(ME, before)[1])
    assert found(gone, passed).undecided == {(before, MINER), (epoch, MINER)}
    rested = {**ALL, before: replace(facts(before), steps={MINER: ()})}
    assert found(gone, epochs=rested).undecided == {(before - 1, MINER), (epoch, MINER)}
    assert not found(replace(gone, validator=OTHER)).undecided
    assert not found(gone, said(ME, Outcome.PASS, epoch, AuditKind.STEP, of_step(ME, epoch)[1])).undecided


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
        st.sampled_from([AuditKind.OP, AuditKind.STEP, AuditKind.EPOCH, AuditKind.RECORDS]),
        st.sampled_from(STEPS),
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
