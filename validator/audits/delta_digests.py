"""Digests of a pseudo-gradient's parts from two sets of weights, in the memory of one part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from blake3 import blake3
from torch import Tensor

from iota.compute.commitment import byte_parts, tensor_bytes
from iota.outer import open_delta_codec
from iota.outer.partition import Vector


def delta_digests(base: Mapping[str, Tensor], final: Mapping[str, Tensor], part_elements: int) -> list[str]:
    """BLAKE3 (hex) of each encoded part of `base` - `final`, as a miner stores it.

    Both hold fp32 tensors on the CPU, of the same names and shapes.
    """
    encode = open_delta_codec().encode
    pairs = zip(_parts(base, part_elements), _parts(final, part_elements), strict=True)
    return [blake3(encode(start_N - end_N)).hexdigest() for start_N, end_N in pairs]


def _parts(tensors: Mapping[str, Tensor], part_elements: int) -> Iterator[Vector]:
    buffers = (tensor_bytes(tensors[name]) for name in sorted(tensors))
    for pieces in byte_parts(buffers, 4 * part_elements):
        yield np.concatenate([np.frombuffer(piece, np.float32) for piece in pieces])
