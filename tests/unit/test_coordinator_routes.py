"""Routes: work in proportion to speed, and chains of replicas that stay together."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota.protocol.receipts import OpKind
from orchestrator.coordinator.routes import assign_turns, interleave
from tests.support.coordinators import Driven
from tests.support.small_spec import small_spec


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.integers(0, 60))
def test_turns_follow_the_weights(weights: list[int], count: int) -> None:
    turns = Counter(interleave(weights, count))
    assert sum(turns.values()) == count
    for index, weight in enumerate(weights):
        assert abs(turns[index] - count * weight / sum(weights)) <= 1


def test_turns_alternate_rather_than_bunch() -> None:
    assert interleave([1, 1], 6) == [0, 1, 0, 1, 0, 1]
    assert interleave([2, 1], 6) == [0, 1, 0, 0, 1, 0]


def test_stages_with_equally_many_replicas_take_the_same_turns() -> None:
    first, second = assign_turns([[1.0, 2.0], [1.0, 1.0]], 9)
    assert first == second
    assert Counter(first) == {0: 6, 1: 3}


def test_stages_with_other_numbers_of_replicas_go_by_their_own_speeds() -> None:
    first, second = assign_turns([[1.0, 1.0], [1.0]], 4)
    assert Counter(first) == {0: 2, 1: 2}
    assert second == [0, 0, 0, 0]


@pytest.mark.parametrize("seconds", [[0.0, 0.0], [0.0, 5.0]])
def test_a_replica_that_was_never_measured_counts_as_the_fastest(seconds: list[float]) -> None:
    turns = Counter(assign_turns([seconds], 16)[0])
    assert turns[0] >= turns[1] > 0


def test_noise_in_speeds_changes_no_route() -> None:
    assert assign_turns([[1.0, 1.02]], 12) == assign_turns([[1.02, 1.0]], 12)


def test_steps_are_planned_up_to_the_look_ahead_and_each_route_names_a_replica_of_each_stage() -> None:
    driven = Driven.training(small_spec(layout={"cuts": [1, 2], "replicas": 2}))
    steps = driven.state.current.steps
    assert len(steps) == driven.state.limits.lookahead
    for step in steps:
        for mb in step.microbatches:
            assert [driven.state.members[p.miner].stage for p in mb.places] == [0, 1]


def test_nothing_is_planned_while_a_stage_has_no_replica() -> None:
    driven = Driven.training(small_spec())
    driven.lose(driven.state.miners(1)[0])
    for index in range(2):
        driven.run_op(0, index, 0, OpKind.FORWARD)
    assert len(driven.state.current.steps) == driven.state.limits.lookahead
