"""Commitments to a replica's state: Merkle trees over parts of its tensors.

    leaf  = BLAKE3 of the raw little-endian bytes of one part
    group = Merkle root of its leaves (weights, moments, weights of the version before)
    root  = Merkle root of the three groups (`iota.protocol.receipts.Commitment.root`)

A group is its tensors one after another, sorted by name, in row-major order; all are fp32. A part is
`outer.part_elements` of them, so that the leaves of weights are those of a base and of a pseudo-gradient.
Names and shapes follow from the spec. A stage has some hundred leaves, which can be computed side by side,
and a leaf can be compared, or opened, without the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from blake3 import blake3
from torch import Tensor

from iota.compute.state import StageState
from iota.protocol.merkle import merkle_root
from iota.protocol.receipts import Commitment


def commitment(state: StageState, part_elements: int) -> Commitment:
    """The commitment to a state on the CPU. A state without moments commits to `merkle.EMPTY` for them."""
    return Commitment(
        weights=tensors_root(state.weights, part_elements),
        moments=tensors_root(state.moments, part_elements),
        before=tensors_root(state.before, part_elements),
    )


def tensors_root(tensors: Mapping[str, Tensor], part_elements: int) -> str:
    """Merkle root of a group of fp32 tensors on the CPU; `merkle.EMPTY` for none.

    Raises TypeError for another dtype.
    """
    return merkle_root(tensors_leaves(tensors, part_elements))


def tensors_leaves(tensors: Mapping[str, Tensor], part_elements: int) -> list[str]:
    """BLAKE3 (hex) of each part of a group, in order. No tensor is copied, unless it is not contiguous."""
    leaves = []
    for part in _parts(tensors, part_elements):
        hasher = blake3(max_threads=max(1, torch.get_num_threads()))
        for piece_N in part:
            hasher.update(piece_N.view(torch.uint8).numpy().data)
        leaves.append(hasher.hexdigest())
    return leaves


def _parts(tensors: Mapping[str, Tensor], part_elements: int) -> Iterator[list[Tensor]]:
    """The pieces of tensors, each of one dimension, that make up each part."""
    part: list[Tensor] = []
    room = part_elements
    for name in sorted(tensors):
        flat_N = tensors[name].detach().contiguous().reshape(-1)
        if flat_N.dtype is not torch.float32:
            raise TypeError(f"tensor {name!r} is {flat_N.dtype}, and a state is fp32")
        while flat_N.numel():
            piece_N, flat_N = flat_N[:room], flat_N[room:]
            part.append(piece_N)
            room -= piece_N.numel()
            if not room:
                yield part
                part, room = [], part_elements
    if part:
        yield part
