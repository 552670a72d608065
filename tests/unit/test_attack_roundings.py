"""Attacks on `bf16-sr` across device classes, where a weight goes a whole bf16 step or none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from iota.compute.polar import polar
from iota.compute.rounding import Rounding
from iota.compute.state import StageState
from iota.model.updates import muon_scale
from tests.support.small_runs import small_run
from validator.audits.tolerance import compare_state, profile_for
from validator.core.results import ReplayMismatch

SPEC = small_run(precision="bf16-sr")
PROFILE = profile_for(SPEC, "cpu/one", "cpu/other", ())
STEPS = 4


def start() -> dict[str, Tensor]:
    """Gains of 1, of which one step is 2^-7, and a matrix of small weights."""
    matrix = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)) * 0.02
    return {"gains": torch.ones(4096).bfloat16(), "matrix": matrix.bfloat16()}


def trained(seed: int, rate: float, off: float = 0.0) -> StageState:
    """`STEPS` steps along one direction by `rate`, with roundings by `seed`, on a device that is `off`."""
    weights, moments = start(), {}
    generator = torch.Generator().manual_seed(seed)
    for name, w in weights.items():
        moments[f"exp_avg.{name}"] = direction = torch.randn(w.shape, generator=generator)
        for step in range(STEPS):
            update = rate * (direction + off * torch.randn(w.shape, generator=generator))
            Rounding(seed, 0, step).write(name, w.float() - update, w)
    return StageState(weights, moments)


def compared(theirs: StageState, mine: StageState) -> ReplayMismatch | None:
    return compare_state(PROFILE, 1, StageState(start()), theirs, mine, STEPS)


@pytest.mark.parametrize("rate", [1e-4, 1e-5, 1e-6, 1e-7])
def test_few_roundings_that_fall_otherwise_on_another_device_fail_no_honest_miner(rate: float) -> None:
    """At 1e-6 a few gains of 4,096 move at all; one in ten segments failed for one or two of them."""
    for seed in range(25):
        assert compared(trained(seed, rate, off=0.05), trained(seed, rate)) is None


def test_one_gain_that_moves_on_one_device_alone_is_no_fault_and_a_hundred_are() -> None:
    for count, agrees in ((1, True), (100, False)):
        theirs = trained(0, 1e-8)
        theirs.weights["gains"][:count] += 2**-7
        assert (compared(theirs, trained(0, 1e-8)) is None) is agrees


@pytest.mark.parametrize("rate", [1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("factor", [0, -1, 2])
def test_who_stands_still_goes_back_or_goes_twice_as_far_fails_at_any_rate(rate: float, factor: int) -> None:
    begun, mine = start(), trained(0, rate)
    false = {n: (begun[n].float() + factor * (w.float() - begun[n].float())) for n, w in mine.weights.items()}
    theirs = StageState({name: w.bfloat16() for name, w in false.items()}, mine.moments)
    assert compared(theirs, mine) is not None


def one_token(seed: int, device: int, rate: float) -> StageState:
    """A step of Muon on the gradient of a microbatch in which one token's is 10,000 times the others'."""
    generator = torch.Generator().manual_seed(seed)
    errors = torch.Generator().manual_seed(1000 * seed + device)
    gradient_TR, input_TC = (torch.randn(64, 256, generator=generator) for _ in range(2))
    gradient_TR[0] *= 1e4
    for values in (gradient_TR, input_TC):
        values.mul_(1 + 3e-3 * torch.randn(values.shape, generator=errors))
    weight = start()["matrix"]
    momentum = 0.05 * (gradient_TR.T @ input_TC).bfloat16().float()
    update = rate * muon_scale(256, 256) * polar(momentum[None])[0].float()
    Rounding(seed, 0, 0).write("matrix", weight.float() - update, weight)
    return StageState({"matrix": weight}, {"momentum_buffer.matrix": momentum})


@pytest.mark.parametrize("rate", [1e-2, 1e-3, 1e-4, 1e-5])
def test_a_neighbour_that_sends_the_gradient_of_one_token_fails_no_honest_miner(rate: float) -> None:
    begun = {"matrix": start()["matrix"]}
    profile = profile_for(small_run(precision="bf16-sr", optimizer={"kind": "muon"}), "cuda/a", "cpu/b", ())
    for seed in range(8):
        theirs, mine = (one_token(seed, device, rate) for device in (0, 1))
        assert compare_state(profile, 1, StageState(begun), theirs, mine, 1) is None
        still = StageState(begun, mine.moments)
        if rate > 1e-5:  # at which not a hundred weights of so small a matrix move
            assert compare_state(profile, 1, StageState(begun), still, mine, 1) is not None


def test_rounding_to_the_nearest_is_not_what_the_run_does() -> None:
    mine, theirs = trained(0, 1e-5), start()
    for name, w in theirs.items():
        for _ in range(STEPS):
            w.copy_((w.float() - 1e-5 * mine.moments[f"exp_avg.{name}"]).bfloat16())
    assert compared(StageState(theirs, mine.moments), mine) is not None


def test_weights_that_are_not_rounded_have_no_such_floor() -> None:
    wide = {name: w.float() for name, w in start().items()}
    one, other = ({n: w + far for n, w in wide.items()} for far in (1e-6, 3e-6))
    moments = trained(0, 1e-6).moments
    found = compare_state(
        PROFILE, 1, StageState(wide), StageState(other, moments), StageState(one, moments), 1
    )
    assert found is not None
    assert math.isclose(float(found.found), 2, rel_tol=0.2)
