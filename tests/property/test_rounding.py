"""Stochastic rounding: unbiased, to a neighbour at most, the same bits everywhere, in separate streams."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iota.compute import rounding
from iota.compute.rounding import BLOCK, Rounding, random_bits, rounded, rounding_of
from tests.support.devices import DEVICES
from tests.support.small_spec import small_spec

SAMPLES = 1 << 16
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
BITS = st.integers(0, 0xFFFF)
WORDS = st.integers(-(1 << 31), (1 << 31) - 1)
STEP = Rounding(seed=7, epoch=1, step=3)


def of(value: float, bits: int) -> Tensor:
    return rounded(torch.tensor([value]), torch.tensor([bits], dtype=torch.int32))


def stream(step: Rounding, name: str = "w", block: int = 0, length: int = SAMPLES) -> Tensor:
    return random_bits(torch.arange(length, dtype=torch.int32), *step.keys(name, block))


def neighbours(value: float) -> tuple[float, float]:
    """The bf16 values at or below and above a finite value in magnitude."""
    bits = int(np.float32(value).view(np.uint32))
    low = bits & 0xFFFF0000
    both = np.array([low, low + (0x10000 if bits != low else 0)], np.uint32).view(np.float32)
    return float(both[0]), float(both[1])


@given(value=FLOATS, bits=BITS)
def test_a_value_goes_to_one_of_its_neighbours_and_an_exact_one_stays(value: float, bits: int) -> None:
    found = of(value, bits)
    assert found.dtype is torch.bfloat16
    down, up = neighbours(value)
    assert float(found) in (down, up)
    assert math.copysign(1, float(found)) == math.copysign(1, value), "zeros keep their sign too"


@given(value=FLOATS)
def test_the_chance_of_going_up_is_the_place_between_the_neighbours(value: float) -> None:
    """Of all 2^16 random words exactly so many carry as the cut bits say: the mean is the value."""
    below = int(np.float32(value).view(np.uint32)) & 0xFFFF
    every = torch.arange(1 << 16, dtype=torch.int32)
    found = rounded(torch.full((1 << 16,), value), every).float()
    assert int((found != neighbours(value)[0]).sum()) == below


@pytest.mark.parametrize("value", [math.inf, -math.inf])
@pytest.mark.parametrize("bits", [0, 1, 0xFFFF])
def test_infinity_stays(value: float, bits: int) -> None:
    assert float(of(value, bits)) == value


@pytest.mark.parametrize("bits", [0, 1, 0xFFFF])
@pytest.mark.parametrize("pattern", [0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001, 0x7FC00000])
def test_nan_stays_nan(pattern: int, bits: int) -> None:
    value = torch.from_numpy(np.array([pattern], np.uint32).view(np.float32))
    assert bool(rounded(value, torch.tensor([bits], dtype=torch.int32)).isnan())


@pytest.mark.parametrize("value", [1.001, -0.0123, 3e-39, 0.0, -7.3e20])
def test_the_mean_of_roundings_is_the_value(value: float) -> None:
    target = torch.empty(SAMPLES, dtype=torch.bfloat16)
    STEP.write("w", torch.full((SAMPLES,), value), target)
    down, up = neighbours(value)
    spread = abs(up - down) / 2 / math.sqrt(SAMPLES)
    mean = float(target.double().mean())
    assert abs(mean - float(np.float32(value))) <= 5 * spread


def finaliser(indices: npt.NDArray[np.uint32], a: int, b: int) -> npt.NDArray[np.uint32]:
    """`random_bits` in unsigned arithmetic."""
    x = indices * np.uint32(a & 0xFFFFFFFF) + np.uint32(b & 0xFFFFFFFF)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return (x ^ (x >> np.uint32(16))) & np.uint32(0xFFFF)


@given(a=WORDS, b=WORDS, first=st.integers(0, BLOCK - 100), length=st.integers(1, 100))
def test_wrapping_signed_integers_give_the_bits_of_unsigned_ones(
    a: int, b: int, first: int, length: int
) -> None:
    indices = np.arange(first, first + length, dtype=np.uint32)
    found = random_bits(torch.from_numpy(indices.astype(np.int32)), a, b)
    assert np.array_equal(found.numpy(), finaliser(indices, a, b))


def test_the_bits_are_pinned() -> None:
    """Another vector is another format: runs that are under way would fork."""
    assert STEP.keys("layers.0.mlp.up_proj.weight", 2) == GOLDEN_KEYS
    assert stream(STEP, "layers.0.mlp.up_proj.weight", 2, 8).tolist() == GOLDEN_BITS
    target = torch.empty(8, dtype=torch.bfloat16)
    STEP.write("w", (torch.arange(8.0) - 4) / 3, target)
    assert target.view(torch.int16).tolist() == GOLDEN_ROUNDED


OTHERS = {
    "step": (Rounding(7, 1, 4), "w", 0), "epoch": (Rounding(7, 2, 3), "w", 0),
    "seed": (Rounding(8, 1, 3), "w", 0), "parameter": (STEP, "v", 0), "block": (STEP, "w", 1),
    "epoch and step that read alike": (Rounding(7, 13, 3), "w", 0),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_streams_have_nothing_in_common(other: str) -> None:
    """Words agree as often as chance has it, at equal indices and at any near shift, and do not correlate."""
    mine, theirs = stream(STEP).double(), stream(*OTHERS[other]).double()
    for shift in range(-3, 4):
        moved = theirs.roll(shift)
        assert int((mine == moved).sum()) < 16, "one of 65,536 by chance"
        correlation = float(torch.corrcoef(torch.stack([mine, moved]))[0, 1])
        assert abs(correlation) < 6 / math.sqrt(SAMPLES)


def test_neighbouring_elements_do_not_correlate() -> None:
    mine = stream(STEP).double()
    for shift in (1, 2, 64, 4096):
        correlation = float(torch.corrcoef(torch.stack([mine, mine.roll(shift)]))[0, 1])
        assert abs(correlation) < 6 / math.sqrt(SAMPLES)


def test_words_are_uniform() -> None:
    """Chi-square of each byte, and of the words' top bits, within six deviations."""
    words = stream(STEP, length=1 << 18)
    for part in (words & 0xFF, words >> 8):
        counts = torch.bincount(part, minlength=256).double()
        expected = (1 << 18) / 256
        chi = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi - 255) < 6 * math.sqrt(2 * 255)


def test_each_bit_of_an_index_flips_half_of_the_bits() -> None:
    indices = torch.arange(SAMPLES, dtype=torch.int32)
    keys = STEP.keys("w", 0)
    mine = random_bits(indices, *keys)
    for bit in range(24):
        flipped = mine ^ random_bits(indices ^ (1 << bit), *keys)
        for place in range(16):
            share = float(((flipped >> place) & 1).double().mean())
            assert abs(share - 0.5) < 0.03, (bit, place)


@pytest.mark.parametrize("in_cache", [8, 32, 1 << 17])
def test_a_tensor_of_several_blocks_is_rounded_block_by_block(
    monkeypatch: pytest.MonkeyPatch, in_cache: int
) -> None:
    values = torch.linspace(-1, 1, 70).reshape(7, 10)
    target, pieces = torch.empty(7, 10, dtype=torch.bfloat16), []
    monkeypatch.setattr(rounding, "BLOCK", 32)
    monkeypatch.setattr(rounding, "_IN_CACHE", in_cache)
    STEP.write("w", values, target)
    for block, piece in enumerate(values.reshape(-1).split(32)):
        pieces.append(rounded(piece, stream(STEP, "w", block, piece.numel())))
    assert torch.equal(target.view(-1), torch.cat(pieces))


def test_values_that_are_not_contiguous_are_rounded_in_their_order() -> None:
    values = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    plain, turned = (torch.empty(6, 8, dtype=torch.bfloat16) for _ in range(2))
    STEP.write("w", values, plain)
    STEP.write("w", values.T.contiguous().T, turned)
    assert torch.equal(plain, turned)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_compiled_rounds_to_the_same_bits(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU by the C++ that torch makes, though nodes do not use it there; on CUDA by Triton."""
    monkeypatch.setattr(rounding, "_IN_CACHE", 1 << 12)
    bits = torch.arange(1 << 20, dtype=torch.int64) * 4099 - (1 << 31)
    values = bits.to(torch.int32).view(torch.float32)
    values = values[~values.isnan()]
    here, there = (torch.empty_like(values, dtype=torch.bfloat16, device=at) for at in ("cpu", device))
    STEP.write("w", values, here)
    monkeypatch.setattr("iota.compute.compiled.is_compiled", lambda device: True)
    STEP.write("w", values.to(device), there)
    assert torch.equal(here.view(torch.int16), there.cpu().view(torch.int16))


def test_a_run_with_fp32_weights_rounds_nothing() -> None:
    assert rounding_of(small_spec(precision="bf16-master"), 0, 0) is None
    assert rounding_of(small_spec(precision="bf16-sr", seed=9), 2, 5) == Rounding(9, 2, 5)


GOLDEN_KEYS = (-1503416319, 1610330563)
GOLDEN_BITS = [32603, 35020, 60807, 7434, 24530, 47962, 38541, 40260]
GOLDEN_ROUNDED = [-16469, -16512, -16597, -16725, 0, 16042, 16171, 16256]
