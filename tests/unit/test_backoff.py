"""Pauses double up to a bound, are jittered, and are as long as the other side asks for."""

from __future__ import annotations

import pytest

from iota.retry import Backoff

STEADY = Backoff(first_s=0.5, max_s=10.0, jitter=(1.0, 1.0))


@pytest.mark.parametrize(
    ("failures", "pause_s"), [(1, 0.5), (2, 1.0), (5, 8.0), (6, 10.0), (7, 10.0), (100_000, 10.0)]
)
def test_pauses_double_up_to_their_bound_however_often_it_fails(failures: int, pause_s: float) -> None:
    assert STEADY.pause_s(failures) == pause_s


def test_without_a_bound_pauses_go_on_doubling() -> None:
    assert Backoff(first_s=1.0, jitter=(1.0, 1.0)).pause_s(11) == 1024.0


def test_what_the_other_side_asks_for_lengthens_the_pause_and_never_shortens_it() -> None:
    assert STEADY.pause_s(1, 30.0) == 30.0
    assert STEADY.pause_s(6, 1e-6) == 10.0


@pytest.mark.parametrize("hint_s", [None, 0.0])
def test_without_a_hint_the_pause_is_ours(hint_s: float | None) -> None:
    assert STEADY.pause_s(3, hint_s) == 2.0


def test_jitter_spreads_pauses_and_hints_over_its_range() -> None:
    backoff = Backoff(first_s=1.0, max_s=1.0, jitter=(0.5, 1.5))
    for hint_s, middle_s in ((None, 1.0), (4.0, 4.0)):
        pauses = [backoff.pause_s(3, hint_s) for _ in range(200)]
        assert all(0.5 * middle_s <= pause <= 1.5 * middle_s for pause in pauses)
        assert min(pauses) < middle_s < max(pauses)
