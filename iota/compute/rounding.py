"""Stochastic rounding of fp32 values to bf16, with the same bits on every device.

A value between two bf16 values is rounded up in magnitude with the chance that its place between them says,
so that the mean of its roundings is the value itself. The random bits are no generator's: they are an integer
hash of (seed of the run, epoch, step, parameter, index of the element), so that a replay rounds alike:

    a, b = two 32-bit words of BLAKE3(seed, epoch, step, name, number of the block), a odd
    bits = the low 16 bits of lowbias32(a·i + b), for element i of a block of `BLOCK` elements

lowbias32 is a 32-bit finaliser with nearly perfect avalanche (Wellons, "Prospecting for Hash Functions",
2018). The keys come from a cryptographic hash, so that streams of neighbouring steps, parameters and blocks
have nothing in common; `a` differs too, since streams that differ by `b` alone would be one stream, moved.
Indices stay below 2^24, whatever a tensor's size, and all arithmetic is of 32-bit integers that wrap.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from blake3 import blake3
from torch import Tensor

from iota.compute.compiled import is_compiled
from iota.compute.devices import device_of
from iota.spec import RunSpec

BLOCK: Final = 1 << 24
"""Elements of one block. Part of the format: it decides the bits."""
_IN_CACHE: Final = 1 << 17
"""Elements that a CPU rounds at a time: it is nine times as fast as with whole blocks. It divides `BLOCK`."""
_KEYS: Final = struct.Struct("<ii")
_ONE, _OTHER = 0x7FEB352D, 0x846CA68B - (1 << 32)
"""Multipliers of lowbias32, as signed 32-bit integers."""


@dataclass(frozen=True)
class Rounding:
    """The roundings of one STEP."""

    seed: int
    epoch: int
    step: int

    def write(self, name: str, values: Tensor, target: Tensor) -> None:
        """Round the fp32 `values` of parameter `name` into the bf16 tensor `target`, which is contiguous."""
        flat_N, out_N, device = values.reshape(-1), target.view(-1), device_of(values.device)
        size = min(BLOCK, _IN_CACHE) if device.cached_bytes else BLOCK
        write = _writer(values.device)
        for first in range(0, flat_N.numel(), size):
            block, start = divmod(first, BLOCK)
            # A tensor, since torch.compile would take each number for a constant of its own.
            words_3 = device.to_device(torch.tensor([*self.keys(name, block), start], dtype=torch.int32))
            write(flat_N[first : first + size], words_3, out_N[first : first + size])

    def keys(self, name: str, block: int) -> tuple[int, int]:
        """(a, b) of a block, as signed 32-bit integers."""
        named = f"iota/round/1\n{self.seed}\n{self.epoch}\n{self.step}\n{name}\n{block}"
        a, b = _KEYS.unpack(blake3(named.encode()).digest(length=_KEYS.size))
        return a | 1, b


def rounding_of(spec: RunSpec, epoch: int, step: int) -> Rounding | None:
    """The roundings of a STEP; None in a run whose weights are fp32."""
    return Rounding(spec.seed, epoch, step) if spec.precision.holds_bf16 else None


@cache
def _writer(device: torch.device) -> Callable[[Tensor, Tensor, Tensor], None]:
    """`_write`, as one kernel where the device's layers are compiled, in place of some fourteen."""
    return torch.compile(_write, dynamic=True, fullgraph=True) if is_compiled(device) else _write


def _write(values_N: Tensor, words_3: Tensor, out_N: Tensor) -> None:
    """Round a piece of a block. `words_3` are the block's keys, and the index of the first element."""
    a, b, start = words_3.unbind()
    index_N = torch.arange(values_N.numel(), dtype=torch.int32, device=values_N.device) + start
    out_N.copy_(rounded(values_N, random_bits(index_N, a, b)))


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
