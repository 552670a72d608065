"""bf16 as the upper half of fp32's bits, cut off: what is cut is never larger than it was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from iota.outer.partition import NotFinite, PartError, Vector

Halves = npt.NDArray[np.uint16]
_EXPONENT = 0x7F80


def cut(values: Vector) -> Halves:
    """The bits of fp32 values as bf16, rounded toward zero."""
    return np.ascontiguousarray(values, "<f4").reshape(-1).view("<u2")[1::2].reshape(values.shape)


def widened(halves: Halves) -> Vector:
    """The fp32 values of bf16 bits."""
    bits = halves.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def cut_in_place(values: Vector) -> Vector:
    """The same values as `widened(cut(values))`, in the memory of `values`, which are contiguous."""
    values.view(np.uint32)[:] &= np.uint32(0xFFFF0000)
    return values


def read_halves(data: bytes, count: int) -> Halves:
    """`count` finite bf16 values from their little-endian bits. Raises PartError and NotFinite."""
    if len(data) != 2 * count:
        raise PartError(f"{len(data)} bytes where {count} bf16 values have {2 * count}")
    halves: Halves = np.frombuffer(data, "<u2").astype(np.uint16)
    if bool(((halves & _EXPONENT) == _EXPONENT).any()):
        raise NotFinite("a bf16 value is NaN or Inf")
    return halves


def read_scales(data: bytes, count: int) -> Vector:
    """`count` scales, finite and not negative. Raises PartError and NotFinite."""
    halves = read_halves(data, count)
    if bool((halves >> 15).any()):
        raise PartError("a scale is negative")
    return widened(halves)
