"""How many connections of one source are looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iota.http.token_buckets import TokenBuckets


def test_a_burst_is_taken_and_then_the_rate() -> None:
    limits = TokenBuckets(burst=3, rate=2.0)
    assert [limits.allows("a", 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [limits.allows("a", 0.5), limits.allows("a", 0.6), limits.allows("a", 1.0)] == [True, False, True]


def test_one_source_takes_nothing_from_another() -> None:
    limits = TokenBuckets(burst=1, rate=1.0)
    assert limits.allows("a", 0.0)
    assert not limits.allows("a", 0.0)
    assert limits.allows("b", 0.0)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_no_more_than_burst_and_rate_allow_are_taken(pauses: list[float]) -> None:
    limits, now, taken = TokenBuckets(burst=5, rate=1.5), 0.0, 0
    for pause in pauses:
        now += pause
        taken += limits.allows("a", now)
    assert taken <= 5 + 1.5 * now + 1e-6
