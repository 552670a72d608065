"""Lines of the emulated internet, in virtual time."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.internet.lines import Line, Shape

SIZES = st.lists(st.integers(40, 65_535), min_size=1, max_size=60)
GAPS = st.lists(st.floats(0, 0.05), min_size=60, max_size=60)


def line(**shape: float | None) -> Line:
    return Line(Shape(**shape), random.Random(1))


def test_a_full_line_carries_its_rate_and_everything_comes_after_its_delay() -> None:
    way = line(rate=1e6, delay_s=0.03, queue_s=100)
    arrivals = [way.enter(0.0, 1500) for _ in range(1000)]
    assert arrivals[0] == pytest.approx(0.0015 + 0.03)
    assert arrivals[-1] == pytest.approx(1.5 + 0.03)


def test_a_line_without_limits_takes_no_time() -> None:
    assert line().enter(5.0, 1 << 16) == 5.0


def test_what_comes_to_a_full_queue_is_dropped_until_there_is_room() -> None:
    way = line(rate=1e6, queue_s=0.0105)
    taken = sum(way.enter(0.0, 1000) is not None for _ in range(100))
    assert taken == 11  # one on the line, ten milliseconds behind it
    assert way.enter(0.005, 1000) is not None


@given(SIZES, GAPS, st.sampled_from([2e4, 1e6, None]), st.sampled_from([0.0, 0.02]))
def test_packets_stay_in_order_and_none_is_faster_than_rate_and_delay(
    sizes: list[int], gaps: list[float], rate: float | None, jitter_s: float
) -> None:
    way, now, sent, last = line(rate=rate, delay_s=0.01, jitter_s=jitter_s, queue_s=1e9), 0.0, 0, 0.0
    for size, gap in zip(sizes, gaps, strict=False):
        now += gap
        sent += size
        arrival = way.enter(now, size)
        assert arrival is not None
        assert arrival >= max(last, now + 0.01 + (size / rate if rate else 0) - 1e-9)
        assert rate is None or arrival >= sent / rate + 0.01 - 1e-9
        last = arrival


@given(st.lists(st.integers(1, 44), min_size=1, max_size=40), st.sampled_from([0.0, 0.005, 0.3, 1.0]))
def test_losses_leave_ranges_of_what_was_sent(counts: list[int], loss: float) -> None:
    way = line(loss=loss)
    for count in counts:
        kept = way.kept(count)
        places = [place for first, end in kept for place in range(first, end)]
        assert places == sorted(set(places) & set(range(count)))
        assert all(first < end for first, end in kept)
        assert all(end < first for (_, end), (first, _) in itertools.pairwise(kept))
        if loss in (0.0, 1.0):
            assert kept == ([] if loss else [(0, count)])


def test_a_share_of_packets_is_lost_however_they_are_bundled() -> None:
    for bundle in (1, 44):
        way = line(loss=0.02)
        kept = sum(end - first for _ in range(88_000 // bundle) for first, end in way.kept(bundle))
        assert 1 - kept / 88_000 == pytest.approx(0.02, rel=0.15)


def test_a_packet_out_of_order_comes_after_the_next() -> None:
    way = line(reorder=0.1, reorder_s=0.01)
    arrivals = [way.enter(place / 1000, 100) for place in range(1000)]
    late = sum(a is not None and b is not None and a > b for a, b in itertools.pairwise(arrivals))
    assert 60 < late < 140


def test_another_shape_holds_for_what_is_sent_from_then_on() -> None:
    way = line(delay_s=1.0)
    before = way.enter(0.0, 100)
    way.shape = Shape(delay_s=2.0)
    assert (before, way.enter(0.0, 100)) == (1.0, 2.0)


def test_a_slower_line_keeps_what_is_a_share() -> None:
    slower = Shape(rate=100.0, delay_s=0.1, loss=0.005, queue_s=0.2).slower(4)
    assert (slower.rate, slower.delay_s, slower.loss, slower.queue_s) == (25.0, 0.4, 0.005, 0.8)


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"loss": 1.5}, {"delay_s": -1.0}], ids=str)
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Shape(**wrong)
