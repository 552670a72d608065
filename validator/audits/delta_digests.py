"""Digests of a pseudo-gradient's parts from two sets of weights, in the memory of one part."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from blake3 import blake3
from torch import Tensor

from iota.compute.commitment import tensor_parts
from iota.outer import open_delta_codec


def delta_digests(base: Mapping[str, Tensor], final: Mapping[str, Tensor], part_elements: int) -> list[str]:
    """BLAKE3 (hex) of each encoded part of `base` - `final`, as a miner stores it.

    Both hold fp32 tensors on the CPU, of the same names and shapes.
    """
    encode = open_delta_codec().encode
    pairs = zip(tensor_parts(base, part_elements), tensor_parts(final, part_elements), strict=True)
    return [blake3(encode((torch.cat(start) - torch.cat(end)).numpy())).hexdigest() for start, end in pairs]
