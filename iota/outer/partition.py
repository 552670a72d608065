"""Partitions of a stage's vector, and their bytes (raw little-endian fp32)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


class PartError(Exception):
    """Bytes that are not the expected partition: wrong size, names or values."""


class NotFinite(PartError):
    """A partition that holds NaN or infinity."""


def split(vector_N: Vector, part_elements: int) -> list[Vector]:
    """Consecutive views of `part_elements` each; the last may be shorter."""
    return [vector_N[first : first + part_elements] for first in range(0, vector_N.size, part_elements)]


def part_bytes(part: Vector) -> bytes:
    """The partition as raw little-endian fp32."""
    return np.ascontiguousarray(part, dtype="<f4").tobytes()


def read_part(data: bytes, elements: int) -> Vector:
    """A partition of `elements` from its bytes, as a copy. Raises PartError for another size, NotFinite."""
    if len(data) != 4 * elements:
        raise PartError(f"{len(data)} bytes where the partition has {4 * elements}")
    part: Vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
    if not bool(np.isfinite(part).all()):
        raise NotFinite("the partition holds NaN or Inf")
    return part
