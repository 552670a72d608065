"""What an address or a hotkey may ask in a time is bounded, and so is what is remembered of it."""

from __future__ import annotations

from orchestrator.http.limits import TokenBuckets


def test_a_burst_is_taken_at_once_and_more_at_the_rate() -> None:
    buckets = TokenBuckets(rate=2.0, burst=3.0)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("a", 0.5) == 0.0
    assert buckets.take("a", 0.5) == 0.5


def test_one_that_asks_too_much_costs_others_nothing() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1.0)
    assert (buckets.take("a", 0.0), buckets.take("a", 0.0)) == (0.0, 1.0)
    assert buckets.take("b", 0.0) == 0.0


def test_those_that_asked_least_recently_are_forgotten() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1.0, keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, 0.0)
    assert buckets.take("a", 0.0) == 1.0
    assert buckets.take("b", 0.0) == 0.0
