"""Moments in 8 bits: unbiased, near, never a second moment of zero, finite whatever a state says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iota.compute import rounding
from iota.compute.moment_codes import decode, encode, largest
from iota.compute.moments import make_moments, open_moment
from iota.compute.rounding import Rounding
from iota.model.moment_layout import BLOCK, moment_forms
from iota.spec import OptimizerSpec
from tests.support.devices import DEVICES

STEP = Rounding(seed=7, epoch=1, step=3).of("moments")
CPU = torch.device("cpu")
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def bits(count: int, name: str = "exp_avg.w") -> Tensor:
    return rounding.bits(STEP.words(name, slice(0, count), CPU), torch.empty(count))


def drawn(count: int, seed: int = 0) -> Tensor:
    """Values of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator) * 10 ** torch.empty(count).uniform_(
        -3, 0, generator=generator
    )


@pytest.mark.parametrize("count", [1, 255, BLOCK, 3 * BLOCK + 7])
@pytest.mark.parametrize("signed", [True, False])
def test_a_small_float_is_within_an_eighth_of_its_value(signed: bool, count: int) -> None:
    values = drawn(count) if signed else drawn(count).square()
    codes, scale = encode(values, bits(count), signed=signed)
    assert codes.dtype is (torch.int8 if signed else torch.uint8)
    found = decode(codes, scale)
    scales = scale.repeat_interleave(BLOCK)[:count]
    below = scales * (2.0**-14 if signed else 2.0**-30)  # what is smaller becomes 0, or the smallest code
    assert bool(((found - values).abs() <= values.abs() / 8 * 1.0001 + below).all())


@pytest.mark.parametrize("signed", [True, False])
def test_small_floats_are_the_same_on_every_device(signed: bool) -> None:
    """They are bits of the values: here cut out by NumPy."""
    values = drawn(BLOCK) if signed else drawn(BLOCK).square()
    codes, scale = encode(values, bits(BLOCK), signed=signed)
    exponent = math.floor(math.log2(float(values.abs().max()))) + 1
    assert scale.tolist() == [2.0**exponent]
    raw = (np.abs(values.numpy()) / np.float32(2.0**exponent)).view(np.uint32)
    kept = (raw + (bits(BLOCK).numpy().astype(np.uint32) << 4)) >> 20
    expected = kept.astype(np.int64) - (127 << 3) + (127 if signed else 255)
    assert codes.int().abs().tolist() == np.maximum(expected, 0 if signed else 1).tolist()


@pytest.mark.parametrize("value", [0.37, -0.011, 1.0, -0.99])
def test_the_mean_of_codes_is_the_value(value: float) -> None:
    values = torch.full((64 * BLOCK,), value)
    values[::BLOCK] = 1.0
    found = decode(*encode(values, bits(len(values)), signed=True))
    rest = torch.ones(len(values), dtype=torch.bool)
    rest[::BLOCK] = False
    off = float((found[rest].double() - value).mean())
    assert abs(off) <= 5 * abs(value) / 8 / math.sqrt(len(values)) + 1e-6


@given(values=st.lists(FLOATS, min_size=1, max_size=8))
def test_what_is_encoded_is_finite_and_keeps_its_sign(values: list[float]) -> None:
    given_N = torch.tensor(values, dtype=torch.float32)
    found = decode(*encode(given_N, bits(len(values)), signed=True))
    assert bool(found.isfinite().all())
    assert bool((found * given_N.sign() >= 0).all())


@given(values=st.lists(FLOATS.map(abs), min_size=1, max_size=8))
def test_a_second_moment_above_zero_is_never_zero(values: list[float]) -> None:
    given_N = torch.tensor(values, dtype=torch.float32)
    found = decode(*encode(given_N, bits(len(values)), signed=False))
    assert bool(found.isfinite().all())
    assert bool(((found > 0) == (given_N > 0)).all())
    assert bool((found >= given_N * 0.88)[given_N < 2.0**126].all()), "an update grows by a 16th at the most"


def test_a_value_on_the_grid_stays() -> None:
    grid = torch.tensor([1.0, 1.125, -1.875, 0.25, -0.0, 2.0**-9 * 1.5]).repeat(50)
    for step in range(5):
        other = rounding.bits(Rounding(1, 0, step).words("x", slice(0, grid.numel()), CPU), grid)
        assert torch.equal(decode(*encode(grid, other, signed=True)), grid)


def test_zeros_are_zero_bytes() -> None:
    zeros = torch.zeros(2 * BLOCK)
    for codes, scale in (
        encode(zeros, bits(2 * BLOCK), signed=True),
        encode(zeros, bits(2 * BLOCK), signed=False),
    ):
        assert not codes.any()
        assert not scale.any()


@pytest.mark.parametrize("scale", [0.0, 1e-38, 2.0**-149, 1.0, 3.7, 2.6e36, 1.7e38])
def test_all_codes_of_a_strangers_state_are_finite_if_its_scales_are_in_order(scale: float) -> None:
    scales = torch.tensor([scale])
    signed, unsigned = torch.arange(-128, 128).to(torch.int8), torch.arange(256).to(torch.uint8)
    floats, bound = (decode(signed, scales), decode(unsigned, scales)), largest(scales)
    assert bool(bound.isfinite().all())
    assert all(bool((each.abs() <= bound).all()) for each in floats)
    assert bool((floats[1] >= 0).all())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["exp_avg", "exp_avg_sq"])
def test_what_is_compiled_keeps_the_same_codes(
    kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU by the C++ that torch makes, though nodes do not use it there; on CUDA by Triton."""
    spec, shapes = OptimizerSpec(kind="adamw", lr=1e-3, moments="int8"), {"w": (300, 100)}
    every_N = torch.arange(30_000, dtype=torch.int64) * 143_165 - (1 << 31)
    values_N = every_N.to(torch.int32).view(torch.float32).nan_to_num(0, 1e38, -1e38)
    values_N = values_N if kind == "exp_avg" else values_N.abs()

    def kept(at: str) -> list[Tensor]:
        made = make_moments(moment_forms(spec, shapes), torch.device(at))
        moment = open_moment(made, f"{kind}.w")
        pieces = (slice(0, 20_480), slice(20_480, 30_000))
        read = [moment.write(piece, values_N[piece].to(at), Rounding(7, 0, 1)).cpu() for piece in pieces]
        return [*read, *(tensor.cpu() for tensor in made.values())]

    here = kept("cpu")
    monkeypatch.setattr("iota.compute.compiled.is_compiled", lambda device: True)
    there = kept(device)
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


def test_streams_of_weights_moments_and_sums_have_nothing_in_common() -> None:
    step = Rounding(7, 1, 3)
    other = Rounding(7, 1, 4).of("sums/0")
    streams = (step, step.of("moments"), step.of("sums/0"), step.of("sums/1"), other)
    assert len({stream.keys("w", 0) for stream in streams}) == len(streams)
