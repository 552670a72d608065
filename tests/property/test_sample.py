"""The sample order: a permutation on every pass, keyed, and computed without state."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.data import sample_index, sequence_indices

SEEDS = st.integers(0, 2**63 - 1)


@given(seed=SEEDS, turn=st.integers(0, 1000), count=st.integers(1, 700))
def test_every_pass_visits_every_sequence_once(seed: int, turn: int, count: int) -> None:
    order = [sample_index(seed, turn * count + i, count) for i in range(count)]
    assert sorted(order) == list(range(count))


@given(seed=SEEDS, turn=st.integers(0, 1000), count=st.integers(32, 300))
def test_two_passes_have_different_orders(seed: int, turn: int, count: int) -> None:
    first, second = (
        [sample_index(seed, t * count + i, count) for i in range(count)] for t in (turn, turn + 1)
    )
    assert first != second


@given(seed=SEEDS, count=st.integers(32, 300))
def test_two_seeds_have_different_orders(seed: int, count: int) -> None:
    first, second = ([sample_index(s, i, count) for i in range(count)] for s in (seed, seed + 1))
    assert first != second


@given(seed=SEEDS, position=st.integers(0, 2**60), count=st.integers(1, 2**40))
def test_any_position_of_any_data_set_is_found_at_once(seed: int, position: int, count: int) -> None:
    assert 0 <= sample_index(seed, position, count) < count


@given(
    seed=SEEDS,
    steps=st.integers(1, 4),
    microbatches=st.integers(1, 5),
    sequences=st.integers(1, 4),
    count=st.integers(1, 60),
)
@settings(max_examples=50)
def test_microbatches_in_order_walk_the_sample_order(
    seed: int, steps: int, microbatches: int, sequences: int, count: int
) -> None:
    walked = [
        sample
        for epoch in range(2)
        for step in range(steps)
        for index in range(microbatches)
        for sample in sequence_indices(
            seed,
            epoch,
            step,
            index,
            steps=steps,
            microbatches=microbatches,
            sequences=sequences,
            count=count,
            first=0,
        )
    ]
    assert walked == [sample_index(seed, i, count) for i in range(len(walked))]


def test_the_order_looks_shuffled() -> None:
    count = 10_000
    order = [sample_index(7, i, count) for i in range(count)]
    mean_step = sum(abs(a - b) for a, b in pairwise(order)) / count
    # Neighbours of a random permutation are count/3 apart on average, with deviation near count/4/100.
    assert mean_step == pytest.approx(count / 3, rel=0.05)
    assert sum(a == i for i, a in enumerate(order)) < 12


def test_the_order_is_fixed_for_good() -> None:
    # Two nodes of different releases must agree: a change of these numbers is a new data version.
    assert [sample_index(1, i, 1000) for i in range(8)] == [375, 467, 503, 268, 346, 568, 934, 477]
    assert [sample_index(1, 1000 + i, 1000) for i in range(4)] == [953, 711, 943, 332]
    assert sample_index(2**63 - 1, 10**12, 999_999_937) == 423_309_008


@pytest.mark.parametrize(("step", "index"), [(2, 0), (0, 3), (-1, 0)])
def test_a_microbatch_outside_the_schedule_is_refused(step: int, index: int) -> None:
    with pytest.raises(ValueError, match="no microbatch"):
        sequence_indices(0, 0, step, index, steps=2, microbatches=3, sequences=1, count=10, first=0)


def test_no_data_is_refused() -> None:
    with pytest.raises(ValueError, match="prepare more data"):
        sample_index(0, 0, 0)
