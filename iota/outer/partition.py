"""A stage's vector in partitions, and their bytes (raw little-endian fp32)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReplicaPart:
    """One replica's share in the merge of a partition."""

    hotkey: str
    tokens: int
    """From counted receipts."""
    part: Vector


class PartError(Exception):
    """Bytes that are not the partition they should be."""


def split(vector_N: Vector, part_elements: int) -> list[Vector]:
    """Views of consecutive partitions."""
    return [vector_N[first : first + part_elements] for first in range(0, vector_N.size, part_elements)]


def part_bytes(part: Vector) -> bytes:
    return np.ascontiguousarray(part, dtype="<f4").tobytes()


def read_part(data: bytes, elements: int) -> Vector:
    """Raises PartError for another size, or for NaN and Inf."""
    if len(data) != 4 * elements:
        raise PartError(f"{len(data)} bytes where the partition has {4 * elements}")
    part: Vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
    if not bool(np.isfinite(part).all()):
        raise PartError("the partition holds NaN or Inf")
    return part
