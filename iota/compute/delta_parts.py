"""A replica's pseudo-gradient, encoded by partitions: each thread has one in memory, and not a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from iota.compute.commitment import byte_parts, tensor_bytes
from iota.compute.in_order import in_order
from iota.outer.error_feedback import encode_part
from iota.outer.partition import Vector
from iota.outer.short_floats import widened
from iota.spec import OuterSpec

Feedback = Callable[[int, int], Vector | None]
"""The feedback of a partition by its number and elements; None for zeros. It is called by several threads."""


@dataclass(frozen=True)
class EncodedPart:
    """One partition as it is sent, and what is not."""

    data: bytes
    left: Vector | None
    """The feedback for the next epoch; None in a run without."""


def encoded_parts(
    outer: OuterSpec, start: Mapping[str, Tensor], final: Mapping[str, Tensor], feedback: Feedback
) -> Iterator[EncodedPart]:
    """Each encoded partition of `start` - `final`, as a miner stores it, in order and by several threads.

    Both hold a replica's weights on the CPU, of the same names, shapes and dtype; the difference is of fp32.
    """

    def encoded(given: tuple[int, tuple[Vector, Vector]]) -> EncodedPart:
        number, (start_N, end_N) = given
        change_N = np.subtract(start_N, end_N)
        return EncodedPart(*encode_part(outer, change_N, feedback(number, change_N.size)))

    pairs = zip(_parts(start, outer.part_elements), _parts(final, outer.part_elements), strict=True)
    yield from in_order(encoded, enumerate(pairs))


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
