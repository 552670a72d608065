"""No persistent cheat gains by the scoring rule at the default rates of audits."""

from __future__ import annotations

import pytest

from iota.spec import AuditSpec
from scripts.bench_audit_gain import (
    CHEATS,
    HIDDEN,
    HIDING,
    SELDOM,
    VALIDATORS,
    Cheat,
    hide,
    play,
    proposed_audit,
)


@pytest.mark.parametrize("cheat", CHEATS, ids=[f"{n}" for n in range(len(CHEATS))])
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_a_persistent_cheat_loses_on_average(cheat: Cheat, rate: float) -> None:
    assert play(cheat, rate, AuditSpec(), lives=20, epochs=100).gain < 0


@pytest.mark.parametrize(("cheat", "rate"), [row[:2] for row in SELDOM], ids=[row[0].name for row in SELDOM])
def test_who_lies_seldom_or_leaves_when_drawn_loses_on_average(cheat: Cheat, rate: float) -> None:
    assert play(cheat, rate, AuditSpec(), lives=20, epochs=100).gain < 0


@pytest.mark.parametrize("validators", VALIDATORS)
@pytest.mark.parametrize("hides", HIDING)
@pytest.mark.parametrize("lie", HIDDEN)
def test_who_hides_what_segments_alone_find_is_paid_less_than_the_share_of_work_that_it_does(
    lie: str, hides: str, validators: int
) -> None:
    row = hide(lie, hides, validators, AuditSpec(), lives=20, epochs=100)
    assert row.pay < row.work


@pytest.mark.parametrize("hides", HIDING)
@pytest.mark.parametrize("lie", HIDDEN)
def test_hiding_is_a_loss_too_at_the_rates_that_are_proposed_at_full_size(lie: str, hides: str) -> None:
    row = hide(lie, hides, 1, proposed_audit("orion-100b"), lives=4, epochs=600)
    assert row.pay < row.work


def test_an_honest_miner_gains_and_loses_nothing() -> None:
    row = play(Cheat("honest", "op", 0.0), 0.0, AuditSpec(), lives=2, epochs=50)
    assert (row.detected, row.pay, row.gain) == (0.0, 1.0, 0.0)
