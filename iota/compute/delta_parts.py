"""A replica's pseudo-gradient, encoded one partition after another: in the memory of one, not of a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from iota.compute.commitment import byte_parts, tensor_bytes
from iota.outer.error_feedback import encode_part
from iota.outer.partition import Vector
from iota.outer.short_floats import widened
from iota.spec import OuterSpec

Feedback = Callable[[int, int], Vector | None]
"""The feedback of a partition by its number and elements; None for zeros."""


@dataclass(frozen=True)
class EncodedPart:
    """One partition as it is sent, and what is not."""

    data: bytes
    left: Vector | None
    """The feedback for the next epoch; None in a run without."""


def encoded_parts(
    outer: OuterSpec, start: Mapping[str, Tensor], final: Mapping[str, Tensor], feedback: Feedback
) -> Iterator[EncodedPart]:
    """Each encoded partition of `start` - `final`, as a miner stores it.

    Both hold a replica's weights on the CPU, of the same names, shapes and dtype; the difference is of fp32.
    """
    pairs = zip(_parts(start, outer.part_elements), _parts(final, outer.part_elements), strict=True)
    for number, (start_N, end_N) in enumerate(pairs):
        change_N = np.subtract(start_N, end_N)
        yield EncodedPart(*encode_part(outer, change_N, feedback(number, change_N.size)))


def no_feedback(number: int, elements: int) -> Vector | None:
    """The `Feedback` of a replica that keeps nothing."""
    return None


def _parts(tensors: Mapping[str, Tensor], part_elements: int) -> Iterator[Vector]:
    width = next(iter(tensors.values())).element_size()
    buffers = (tensor_bytes(tensors[name]) for name in sorted(tensors))
    for pieces in byte_parts(buffers, width * part_elements):
        yield np.concatenate([_values(piece, width) for piece in pieces])


def _values(data: memoryview, width: int) -> Vector:
    """The fp32 values of raw fp32, or of raw bf16 where an element has two bytes."""
    if width == 4:
        return np.frombuffer(data, np.float32)
    return widened(np.frombuffer(data, np.uint16))
