"""Deadlines that adapt to measured durations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.coordinator.adaptive_deadline import AdaptiveDeadline


def test_before_eight_measurements_the_first_deadline_holds() -> None:
    deadline = AdaptiveDeadline(first_s=60.0, min_s=2.0, max_s=600.0)
    for _ in range(7):
        deadline.add(1.0)
    assert deadline.seconds == 60.0
    deadline.add(1.0)
    assert deadline.seconds == 2.0


def test_it_is_the_median_and_six_deviations() -> None:
    deadline = AdaptiveDeadline(first_s=60.0, min_s=2.0, max_s=600.0)
    for seconds in (9.0, 9.0, 9.0, 10.0, 10.0, 11.0, 11.0, 11.0):
        deadline.add(seconds)
    assert deadline.seconds == 10.0 + 6 * 1.0


def test_one_outlier_moves_it_little() -> None:
    deadline = AdaptiveDeadline(first_s=60.0, min_s=2.0, max_s=600.0)
    for seconds in (*[10.0] * 20, 10_000.0):
        deadline.add(seconds)
    assert deadline.seconds == 10.0


@given(st.lists(st.floats(0, 1e6), max_size=100), st.floats(0, 1e4))
def test_it_stays_within_its_bounds(durations: list[float], first_s: float) -> None:
    deadline = AdaptiveDeadline(first_s=first_s, min_s=2.0, max_s=600.0)
    for seconds in durations:
        deadline.add(seconds)
        assert 2.0 <= deadline.seconds <= 600.0
