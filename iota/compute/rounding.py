"""Stochastic rounding of fp32 values to bf16, with the same bits on every device.

A value between two bf16 values is rounded up in magnitude with the chance that its place between them says,
so that the mean of its roundings is the value itself. The random bits are no generator's: they are an integer
hash of (seed of the run, epoch, step, parameter, index of the element), so that a replay rounds alike:

    a, b = two 32-bit words of BLAKE3(purpose, seed, epoch, step, name, number of the block), a odd
    bits = the low 16 bits of lowbias32(a·i + b), for element i of a block of `BLOCK` elements

lowbias32 is a 32-bit finaliser with nearly perfect avalanche (Wellons, "Prospecting for Hash Functions",
2018). The keys come from a cryptographic hash, so that streams of neighbouring steps, parameters and blocks
have nothing in common, nor those of weights, moments and sums of gradients; `a` differs too, since streams
that differ by `b` alone would be one stream, moved.
Indices stay below 2^24, whatever a tensor's size, and all arithmetic is of 32-bit integers that wrap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
from blake3 import blake3
from torch import Tensor

from iota.compute.compiled import fused
from iota.compute.devices import device_of
from iota.spec import Moments, RunSpec

BLOCK: Final = 1 << 24
"""Elements of one block. Part of the format: it decides the bits."""
_IN_CACHE: Final = 1 << 17
"""Elements that a CPU rounds at a time: it is nine times as fast as with whole blocks. It divides `BLOCK`."""
_KEYS: Final = struct.Struct("<ii")
_ONE, _OTHER = 0x7FEB352D, 0x846CA68B - (1 << 32)
"""Multipliers of lowbias32, as signed 32-bit integers."""


@dataclass(frozen=True)
class Rounding:
    """The roundings of one STEP, or of one microbatch that is added to its sum."""

    seed: int
    epoch: int
    step: int
    purpose: str = ""
    """What is rounded; empty for weights."""

    def of(self, purpose: str) -> Rounding:
        """The roundings of something else in the same STEP."""
        return replace(self, purpose=purpose)

    def write(self, name: str, values: Tensor, target: Tensor) -> None:
        """Round the fp32 `values` of parameter `name` into the bf16 tensor `target`, which is contiguous."""
        flat_N, out_N = values.reshape(-1), target.view(-1)
        for piece in pieces(flat_N.numel(), values.device):
            self.write_piece(name, piece, flat_N[piece], out_N[piece])

    def write_piece(self, name: str, piece: slice, values_N: Tensor, out_N: Tensor) -> None:
        """Round the fp32 values of a piece of `name`, which is of one block, into the bf16 `out_N`."""
        fused(_write, values_N.device)(values_N, self.words(name, piece, values_N.device), out_N)

    def words(self, name: str, piece: slice, device: torch.device) -> Tensor:
        """What the bits of a piece of parameter `name` follow from, by `bits`: three int32.

        They are the keys of the piece's block, and the index of its first element in it.
        """
        block, start = divmod(piece.start, BLOCK)
        return device_of(device).to_device(torch.tensor([*self.keys(name, block), start], dtype=torch.int32))

    def keys(self, name: str, block: int) -> tuple[int, int]:
        """(a, b) of a block, as signed 32-bit integers."""
        domain = f"iota/round/{self.purpose}/1" if self.purpose else "iota/round/1"
        named = f"{domain}\n{self.seed}\n{self.epoch}\n{self.step}\n{name}\n{block}"
        a, b = _KEYS.unpack(blake3(named.encode()).digest(length=_KEYS.size))
        return a | 1, b


def rounding_of(spec: RunSpec, epoch: int, step: int) -> Rounding | None:
    """The roundings of a STEP; None in a run whose weights and moments are fp32."""
    rounds = spec.precision.holds_bf16 or spec.optimizer.moments is not Moments.FP32
    return Rounding(spec.seed, epoch, step) if rounds else None


def pieces(elements: int, device: torch.device) -> Iterator[slice]:
    """Slices of so many elements, each within one block, as large as the device takes well."""
    size = min(BLOCK, _IN_CACHE) if device_of(device).cached_bytes else BLOCK
    for first in range(0, elements, size):
        yield slice(first, min(first + size, elements))


def _write(values_N: Tensor, words_3: Tensor, out_N: Tensor) -> None:
    out_N.copy_(rounded(values_N, bits(words_3, values_N)))


def bits(words_3: Tensor, values_N: Tensor) -> Tensor:
    """16 random bits, int32, for each value of the piece with these words."""
    a, b, start = words_3.unbind()
    return random_bits(
        torch.arange(values_N.numel(), dtype=torch.int32, device=values_N.device) + start, a, b
    )


def random_bits(index_N: Tensor, a: int | Tensor, b: int | Tensor) -> Tensor:
    """16 random bits, int32, for each int32 index of one block. `a` and `b` are its keys."""
    x_N = index_N * a + b
    x_N = (x_N ^ ((x_N >> 16) & 0xFFFF)) * _ONE
    x_N = (x_N ^ ((x_N >> 15) & 0x1FFFF)) * _OTHER
    return (x_N ^ (x_N >> 16)) & 0xFFFF


def rounded(values_N: Tensor, bits_N: Tensor) -> Tensor:
    """bf16: the fp32 values, rounded by 16 random bits each. NaN and Inf stay.

    The bits are added below the last one that bf16 keeps: whether that carries is the rounding.
    """
    carried_N = ((values_N.view(torch.int32) + bits_N) & -0x10000).view(torch.float32)
    return torch.where(values_N.isfinite(), carried_N, values_N).to(torch.bfloat16)
