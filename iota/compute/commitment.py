"""Commitments to a replica's state: Merkle trees over parts of its tensors.

    leaf  = BLAKE3 of the raw little-endian bytes of one part
    group = Merkle root of its leaves (weights, moments, weights of the version before)
    root  = Merkle root of the three groups (`iota.protocol.receipts.Commitment.root`)

A group is its tensors one after another, sorted by name, in row-major order; all have one dtype: fp32, or
bf16 where the run's weights are. A part is `outer.part_elements` of their elements, so that the leaves of
weights are of the parts of a base and of a pseudo-gradient.
Names and shapes follow from the spec. A stage has some hundred leaves, which can be computed side by side,
and a leaf can be compared, or opened, without the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from blake3 import blake3
from torch import Tensor

from iota.protocol.merkle import merkle_root
from iota.protocol.receipts import Beginning, Commitment

if TYPE_CHECKING:
    from iota.compute.state import StageState

_DTYPES = (torch.float32, torch.bfloat16)
"""Of a state's tensors."""


def commitment(state: StageState, part_elements: int, beginning: Beginning | None = None) -> Commitment:
    """The commitment to a state on the CPU. A state without moments commits to `merkle.EMPTY` for them.

    `beginning` is what the replica shows at the version that is the base.
    """
    return Commitment(
        weights=tensors_root(state.weights, part_elements),
        moments=tensors_root(state.moments, part_elements),
        before=tensors_root(state.before, part_elements),
        beginning=beginning,
    )


def tensors_root(tensors: Mapping[str, Tensor], part_elements: int) -> str:
    """Merkle root of a group of tensors on the CPU; `merkle.EMPTY` for none.

    Raises TypeError where they are not all fp32 or all bf16.
    """
    return merkle_root(tensors_leaves(tensors, part_elements))


def tensors_leaves(tensors: Mapping[str, Tensor], part_elements: int) -> list[str]:
    """BLAKE3 (hex) of each part of a group, in order. No tensor is copied, unless it is not contiguous."""
    sizes = {tensor.element_size() for tensor in tensors.values()}
    if len(sizes) > 1:
        raise TypeError("the tensors of a group have several dtypes")
    part_bytes = part_elements * max(sizes, default=1)
    return leaves((tensor_bytes(tensors[name]) for name in sorted(tensors)), part_bytes)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw bytes of an fp32 or bf16 tensor on the CPU, in row-major order. Raises TypeError for others."""
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"a tensor is {tensor.dtype}, and a state is fp32 or bf16")
    view: memoryview = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return view


def leaves(buffers: Iterable[memoryview], part_bytes: int) -> list[str]:
    """BLAKE3 (hex) of each part of a group, from the bytes of its tensors in the order of their names."""
    digests = []
    for part in byte_parts(buffers, part_bytes):
        hasher = blake3(max_threads=max(1, torch.get_num_threads()))
        for piece in part:
            hasher.update(piece)
        digests.append(hasher.hexdigest())
    return digests


def byte_parts(buffers: Iterable[memoryview], part_bytes: int) -> Iterator[list[memoryview]]:
    """The pieces of buffers that make up each part."""
    part: list[memoryview] = []
    room = part_bytes
    for buffer in buffers:
        rest = buffer
        while len(rest):
            piece, rest = rest[:room], rest[room:]
            part.append(piece)
            room -= len(piece)
            if not room:
                yield part
                part, room = [], part_bytes
    if part:
        yield part
