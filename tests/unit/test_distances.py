"""How far tensors are from one another, as audits across device classes measure it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iota.compute.state import StageState
from validator.audits import distances
from validator.audits.distances import (
    number_error,
    sums,
    worst_along,
    worst_error,
    worst_token,
)
from validator.audits.state_distances import state_distances
from validator.core.results import Quantity

SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.sampled_from([1e-30, 1e-8, 0.5, 1.0, 1024.0, 1e12])


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(SEEDS, SCALES)
def test_distances_do_not_depend_on_the_scale(seed: int, scale: float) -> None:
    mine = noise(seed, 2, 5, 8)
    theirs = mine + 0.01 * noise(seed + 1, 2, 5, 8)
    one, other = sums(theirs, mine), sums(theirs * scale, mine * scale)
    assert other.error == pytest.approx(one.error, rel=1e-4)
    assert other.cosine == pytest.approx(one.cosine, rel=1e-2)
    token, scaled = worst_token(theirs, mine), worst_token(theirs * scale, mine * scale)
    assert scaled.distance == pytest.approx(token.distance, rel=1e-4)


@given(SEEDS)
def test_the_cosine_is_symmetric(seed: int) -> None:
    one, other = noise(seed, 50), noise(seed + 1, 50)
    assert sums(one, other).cosine == pytest.approx(sums(other, one).cosine)


@given(SEEDS, st.integers(0, 199))
def test_a_lie_in_one_token_shows_in_the_worst_token(seed: int, at: int) -> None:
    mine = noise(seed, 2, 100, 8)
    theirs = mine.clone()
    theirs.reshape(200, 8)[at] *= -1
    found = worst_token(theirs, mine)
    assert found.place == f"token {at}"
    typical = float(mine.reshape(200, 8).norm(dim=1).median())
    assert found.distance == pytest.approx(
        2 * float(mine.reshape(200, 8)[at].norm()) / max(typical, float(mine.reshape(200, 8)[at].norm())),
        rel=1e-5,
    )


def test_the_rounding_of_a_token_that_is_all_but_zero_is_not_far() -> None:
    mine = noise(1, 1, 10, 8)
    mine[0, 3] *= 1e-9
    theirs = mine.clone()
    theirs[0, 3] += 1e-9
    assert worst_token(theirs, mine).distance < 1e-8


def test_sums_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs, start, line = (noise(seed, 1000) for seed in range(4))
    whole, token = sums(theirs, mine, start, line), worst_token(theirs.view(1, -1, 8), mine.view(1, -1, 8))
    monkeypatch.setattr(distances, "_BLOCK", 96)
    parts = sums(theirs, mine, start, line)
    assert vars(parts) == pytest.approx(vars(whole))
    assert worst_token(theirs.view(1, -1, 8), mine.view(1, -1, 8)) == token


def test_sums_are_exact_where_fp32_is_not() -> None:
    mine = torch.full((1 << 21,), 1.0)
    theirs = mine.clone()
    theirs[-1] += 2**-20
    assert sums(theirs, mine).error == 2**-20 / math.sqrt(1 << 21)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinitely_far(value: float) -> None:
    mine = noise(1, 1, 4, 8)
    theirs = mine.clone()
    theirs[0, 2, 1] = value
    for a, b in ((theirs, mine), (mine, theirs), (theirs, theirs)):
        found = sums(a, b)
        assert (found.error, found.cosine, worst_token(a, b).distance) == (math.inf,) * 3
        assert worst_error({"w": found}).distance == math.inf
        assert worst_along({"w": sums(a, b, mine, noise(2, 1, 4, 8))}).distance == math.inf


@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 8), (1, 8, 4), (0,), (), (1, 4, 8, 1)])
def test_another_shape_is_infinitely_far(shape: tuple[int, ...]) -> None:
    mine, theirs = noise(1, 1, 4, 8), torch.zeros(shape)
    found = sums(theirs, mine)
    assert (found.error, found.cosine, worst_token(theirs, mine).distance) == (math.inf,) * 3


def test_zeros_are_near_zeros_and_far_from_everything_else() -> None:
    zero, other = torch.zeros(1, 4, 8), noise(1, 1, 4, 8)
    assert (sums(zero, zero).error, sums(zero, zero).cosine) == (0.0, 0.0)
    assert worst_token(zero, zero).distance == 0.0
    assert sums(other, zero).error == sums(other, zero).cosine == math.inf
    assert worst_token(other, zero).distance == math.inf
    assert (sums(zero, other).error, sums(zero, other).cosine) == (1.0, math.inf)


def test_the_smallest_normal_values_are_measured() -> None:
    mine = torch.full((1, 4, 8), 1e-30)
    assert sums(2 * mine, mine).error == pytest.approx(1.0)
    assert worst_token(2 * mine, mine).distance == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("theirs", "mine", "far"),
    [(1.0, 1.0, 0.0), (1.1, 1.0, 0.1), (0.0, 0.0, 0.0), (1e-30, 0.0, math.inf), (None, 1.0, math.inf),
     (math.nan, 1.0, math.inf), (1.0, math.nan, math.inf), (math.inf, math.inf, math.inf)],
)  # fmt: skip
def test_numbers_have_a_relative_error(theirs: float | None, mine: float, far: float) -> None:
    assert number_error(theirs, mine) == pytest.approx(far)


# ---- states -------------------------------------------------------------------------------------


def state(seed: int, *, far: float = 0.0) -> StageState:
    """A state, and with `far` one so far from it."""

    def near(number: int) -> Tensor:
        return noise(number, 6, 4) + far * noise(seed + number, 6, 4)

    return StageState(
        weights={"a": near(10), "b": near(11)},
        moments={"exp_avg.a": near(12), "exp_avg_sq.a": near(13).square(), "step.a": torch.tensor(5.0),
                 "momentum_buffer.b": near(14)},
        before={"a": near(15), "b": near(16)},
    )  # fmt: skip


START = StageState({"a": noise(1, 6, 4), "b": noise(2, 6, 4)})


def test_equal_states_have_no_distance() -> None:
    assert all(worst.distance == 0 for worst in state_distances(START, state(1), state(1)).values())


def test_near_states_are_near_in_every_quantity() -> None:
    found = state_distances(START, state(1, far=1e-3), state(1))
    assert found.keys() == {Quantity.MOMENTS, Quantity.MOMENTS_TENSOR, Quantity.ALONG, Quantity.CHANGE,
                            Quantity.CHANGE_TENSOR}  # fmt: skip
    assert all(0 < worst.distance < 1e-2 for worst in found.values())


@pytest.mark.parametrize(
    ("group", "name", "quantities"),
    [("weights", "b", {Quantity.ALONG, Quantity.CHANGE, Quantity.CHANGE_TENSOR}),
     ("before", "a", {Quantity.ALONG, Quantity.CHANGE, Quantity.CHANGE_TENSOR}),
     ("moments", "exp_avg_sq.a", {Quantity.MOMENTS, Quantity.MOMENTS_TENSOR}),
     ("moments", "step.a", {Quantity.MOMENTS, Quantity.MOMENTS_TENSOR})],
)  # fmt: skip
def test_a_lie_in_one_tensor_shows(group: str, name: str, quantities: set[Quantity]) -> None:
    theirs = state(1)
    tensors = getattr(theirs, group)
    tensors[name] = tensors[name] + 1
    found = state_distances(START, theirs, state(1))
    assert {quantity for quantity, worst in found.items() if worst.distance > 0} == quantities


@pytest.mark.parametrize("group", ["weights", "moments", "before"])
def test_a_state_with_other_names_or_shapes_is_infinitely_far(group: str) -> None:
    for change in ("less", "more", "shape"):
        theirs = state(1)
        tensors = getattr(theirs, group)
        name = next(iter(tensors))
        if change == "less":
            del tensors[name]
        elif change == "more":
            tensors[f"{name}.more"] = torch.zeros(2)
        else:
            tensors[name] = torch.zeros(3)
        assert max(w.distance for w in state_distances(START, theirs, state(1)).values()) == math.inf


def test_the_direction_of_the_momentum_is_measured_and_what_is_across_it_is_not() -> None:
    start, mine = torch.zeros(2), torch.tensor([1.0, 1.0])
    line = torch.tensor([1.0, 0.0])
    across = worst_along({"w": sums(torch.tensor([1.0, 2.0]), mine, start, line)})
    along = worst_along({"w": sums(torch.tensor([2.0, 1.0]), mine, start, line)})
    assert (across.distance, along.distance) == (0.0, pytest.approx(1 / math.sqrt(2)))


def test_the_rounding_of_a_tensor_that_hardly_changed_is_not_far() -> None:
    big, tiny = noise(1, 100), noise(2, 100) * 1e-12
    parts = {"big": sums(big, big), "tiny": sums(2 * tiny, tiny)}
    assert worst_error(parts).distance < 1e-8
