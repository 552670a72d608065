"""`sparse` and `sparse64`: of each chunk of 4,096 elements the 256 or 64 largest, as SparseLoCo sends them
(Sarfi et al., 2025).

    scales    2 x bf16 a chunk: mean magnitudes of its smaller and of its larger kept elements, toward zero
    indices   12 bits each, ascending in a chunk; two in three bytes, the first in the lower bits
    values    2 bits each: sign in the upper bit, which scale in the lower; four in a byte

The kept elements have the largest magnitudes, of equal ones those with the lower index. "Larger" are those
above the mean magnitude of the kept: one step of Lloyd's (1982) quantiser of four levels that are symmetric.
A mean is no larger than the largest, and makes the L2 norm of its group no larger, so that bounds of what
goes in are bounds of what comes out (`iota.outer.bounds`). A short last chunk is filled up with zeros.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from iota.objects.delta_sizes import SPARSE_CHUNK, SPARSE_KEPT, delta_bytes
from iota.outer.partition import PartError, Vector
from iota.outer.short_floats import cut, read_scales
from iota.spec import OuterCodec

Indices = npt.NDArray[np.uint16]
Codes = npt.NDArray[np.uint8]
_BATCH: Final = 128
"""Chunks that are encoded at a time: what is computed on the way stays in a processor's cache."""
_MAGNITUDE: Final = np.uint32(0x7FFFFFFF)
"""Bits of a magnitude, which have its order."""
_SIGN: Final = 31
_SHIFTS: Final = np.arange(0, 8, 2, dtype=np.uint8)
"""Of the four values in a byte."""


class SparseDelta:
    """A `DeltaCodec` that sends some of 4,096 elements, with 2 bits each."""

    def __init__(self, codec: OuterCodec) -> None:
        """`codec` is one of `SPARSE_KEPT`."""
        self._codec, self._kept = codec, SPARSE_KEPT[codec]

    def encode(self, part_N: Vector) -> bytes:
        """Scales, indices and values, as the module describes."""
        chunks = -(-part_N.size // SPARSE_CHUNK)
        scales, indices = np.empty((chunks, 2), "<u2"), np.empty((chunks, self._kept), np.uint16)
        codes: Codes = np.empty((chunks, self._kept), np.uint8)
        for first in range(0, chunks, _BATCH):
            x_CE = _chunks(part_N, first)
            own = slice(first, first + len(x_CE))
            indices[own] = _largest(x_CE, self._kept)
            kept_CK = np.take_along_axis(x_CE, indices[own].astype(np.intp), axis=1)
            scales[own], codes[own] = _quantised(kept_CK)
        return scales.tobytes() + _pack_indices(indices) + _pack_codes(codes)

    def decode(self, data: bytes, elements: int) -> Vector:
        """The kept elements at their places, zeros elsewhere. Raises PartError and NotFinite."""
        if len(data) != delta_bytes(self._codec, elements):
            raise PartError(f"{len(data)} bytes are no {self._codec} partition of {elements} elements")
        chunks = -(-elements // SPARSE_CHUNK)
        values = 4 * chunks + chunks * self._kept * 12 // 8
        scales = read_scales(data[: 4 * chunks], 2 * chunks).reshape(chunks, 2)
        indices = _read_indices(data[4 * chunks : values], self._kept)
        _check_indices(indices, elements - SPARSE_CHUNK * (chunks - 1))
        codes = _read_codes(data[values:], self._kept)
        kept_CK = np.take_along_axis(scales, (codes & 1).astype(np.intp), axis=1)
        kept_CK.view(np.uint32)[:] |= (codes >> 1).astype(np.uint32) << _SIGN
        found: Vector = np.zeros((chunks, SPARSE_CHUNK), np.float32)
        np.put_along_axis(found, indices.astype(np.intp), kept_CK, axis=1)
        return found.reshape(-1)[:elements]


def _chunks(part_N: Vector, first: int) -> Vector:
    """(C, E): up to `_BATCH` chunks from chunk `first` on; a short one is filled up with zeros."""
    own = part_N[first * SPARSE_CHUNK : (first + _BATCH) * SPARSE_CHUNK]
    if own.size % SPARSE_CHUNK == 0:
        return np.ascontiguousarray(own, np.float32).reshape(-1, SPARSE_CHUNK)
    padded: Vector = np.zeros(-(-own.size // SPARSE_CHUNK) * SPARSE_CHUNK, np.float32)
    padded[: own.size] = own
    return padded.reshape(-1, SPARSE_CHUNK)


def _largest(x_CE: Vector, count: int) -> Indices:
    """(C, K): ascending indices of each chunk's `count` largest magnitudes, of equal ones the lower."""
    bits = x_CE.view(np.uint32) & _MAGNITUDE
    at = SPARSE_CHUNK - count
    least = np.partition(bits, at, axis=1)[:, at, None]
    chosen = bits >= least
    for row in np.flatnonzero(np.count_nonzero(chosen, axis=1) > count):
        equal = np.flatnonzero(bits[row] == least[row])
        above = np.count_nonzero(bits[row] > least[row])
        chosen[row, equal[count - above :]] = False
    found: Indices = np.nonzero(chosen)[1].reshape(-1, count).astype(np.uint16)
    return found


def _quantised(kept_CK: Vector) -> tuple[npt.NDArray[np.uint16], Codes]:
    """The scales (C, 2) as bf16 bits, and the codes (C, K), of the kept elements."""
    size, count = np.abs(kept_CK), np.float32(kept_CK.shape[1])
    mean = _row_sums(size) / count
    high = size > mean[:, None]
    many = np.count_nonzero(high, axis=1).astype(np.float32)
    # No magnitude can be above the mean alone, and where none is above it, no code names that scale.
    lower = _row_sums(np.where(high, np.float32(0), size)) / (count - many)
    upper = _row_sums(np.where(high, size, np.float32(0))) / np.maximum(many, np.float32(1))
    codes: Codes = (kept_CK.view(np.uint32) >> _SIGN).astype(np.uint8) * np.uint8(2)
    codes |= high.view(np.uint8)
    return cut(np.stack([lower, upper], axis=1)), codes


def _row_sums(values_CK: Vector) -> Vector:
    """The sum of each row by halves: a fixed order of additions, so that every machine has the same bits."""
    width = values_CK.shape[1]
    while width > 1:
        width //= 2
        values_CK = values_CK[:, :width] + values_CK[:, width : 2 * width]
    return values_CK[:, 0]


def _check_indices(indices: Indices, last: int) -> None:
    """Raise PartError unless each chunk's are ascending, and none is beyond the last chunk's elements."""
    if bool((indices[:, 1:] <= indices[:, :-1]).any()):
        raise PartError("the indices of a chunk are not ascending")
    if indices.size and indices[-1, -1] >= max(last, indices.shape[1]):
        raise PartError("an index is beyond the partition")


def _pack_indices(indices: Indices) -> bytes:
    low, high = indices.reshape(-1)[::2], indices.reshape(-1)[1::2]
    packed = np.stack([low & 0xFF, low >> 8 | (high & 0xF) << 4, high >> 4], axis=1)
    return packed.astype(np.uint8).tobytes()


def _read_indices(data: bytes, kept: int) -> Indices:
    packed = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.uint16)
    low, high = packed[:, 0] | (packed[:, 1] & 0xF) << 8, packed[:, 1] >> 4 | packed[:, 2] << 4
    return np.stack([low, high], axis=1).reshape(-1, kept)


def _pack_codes(codes: Codes) -> bytes:
    packed: Codes = np.bitwise_or.reduce(codes.reshape(-1, 4) << _SHIFTS, axis=1)
    return packed.tobytes()


def _read_codes(data: bytes, kept: int) -> Codes:
    packed: Codes = np.frombuffer(data, np.uint8)[:, None] >> _SHIFTS
    return (packed & np.uint8(3)).reshape(-1, kept)
