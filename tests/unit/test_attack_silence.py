"""A miner cannot have honest validators on different devices silence each other."""

from __future__ import annotations

import pytest

from iota.protocol.messages import AuditKind, Outcome, Verdict
from tests.unit.test_verdict_pool import ME, OTHER, found
from validator.core.pool import Judgement

EXACT, DECLARED = "exact", "declared/0.01/fp32/muon"
MEASURED = "measured/fp32/muon/bf16/5 steps/0123456789abcdef"


def said(validator: str, outcome: Outcome, profile: str, audit: AuditKind = AuditKind.OP) -> Judgement:
    verdict = Verdict(epoch=0, miner=f"5{'C' * 47}", audit=audit, outcome=outcome, seq=2, profile=profile)
    return Judgement.of(validator, verdict)


@pytest.mark.parametrize("narrow", [EXACT, MEASURED])
@pytest.mark.parametrize("mine", [Outcome.PASS, Outcome.FAIL])
def test_a_lie_within_the_declared_bounds_has_no_honest_validator_silenced(
    mine: Outcome, narrow: str
) -> None:
    """One has the class that the miner shows and compares to the bit, the other compares within bounds."""
    theirs = ({Outcome.PASS, Outcome.FAIL} - {mine}).pop()
    profiles = {Outcome.FAIL: narrow, Outcome.PASS: DECLARED}
    both = (said(ME, mine, profiles[mine]), said(OTHER, theirs, profiles[theirs]))
    assert found(*both).silenced == {}


@pytest.mark.parametrize(
    ("failed", "passed"), [(EXACT, EXACT), (DECLARED, DECLARED), (DECLARED, EXACT), ("records", DECLARED)]
)
@pytest.mark.parametrize("mine", [Outcome.PASS, Outcome.FAIL])
def test_who_contradicts_what_it_would_have_seen_is_silenced(mine: Outcome, failed: str, passed: str) -> None:
    theirs = ({Outcome.PASS, Outcome.FAIL} - {mine}).pop()
    profiles = {Outcome.FAIL: failed, Outcome.PASS: passed}
    both = (said(ME, mine, profiles[mine]), said(OTHER, theirs, profiles[theirs]))
    assert set(found(*both).silenced) == {OTHER}


def test_merges_are_compared_to_the_bit_by_everybody() -> None:
    both = (said(ME, Outcome.PASS, "", AuditKind.MERGE), said(OTHER, Outcome.FAIL, EXACT, AuditKind.MERGE))
    assert set(found(*both).silenced) == {OTHER}
