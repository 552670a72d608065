"""Digests of a pseudo-gradient's parts from two sets of weights, in the memory of one part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from blake3 import blake3
from torch import Tensor

from iota.compute.commitment import byte_parts, tensor_bytes
from iota.outer import open_delta_codec
from iota.outer.base_values import bf16_values
from iota.outer.partition import Vector


def delta_digests(base: Mapping[str, Tensor], final: Mapping[str, Tensor], part_elements: int) -> list[str]:
    """BLAKE3 (hex) of each encoded part of `base` - `final`, as a miner stores it.

    Both hold a replica's weights on the CPU, of the same names, shapes and dtype; the difference is of fp32.
    """
    encode = open_delta_codec().encode
    pairs = zip(_parts(base, part_elements), _parts(final, part_elements), strict=True)
    return [blake3(encode(start_N - end_N)).hexdigest() for start_N, end_N in pairs]


def _parts(tensors: Mapping[str, Tensor], part_elements: int) -> Iterator[Vector]:
    width = next(iter(tensors.values())).element_size()
    buffers = (tensor_bytes(tensors[name]) for name in sorted(tensors))
    for pieces in byte_parts(buffers, width * part_elements):
        yield np.concatenate([_values(piece, width) for piece in pieces])


def _values(data: memoryview, width: int) -> Vector:
    """The fp32 values of raw fp32, or of raw bf16 where an element has two bytes."""
    if width == 4:
        return np.frombuffer(data, np.float32)
    return bf16_values(np.frombuffer(data, np.uint16))
