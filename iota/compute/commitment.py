"""Commitments to a replica's state: Merkle trees over parts of its tensors.

    leaf  = BLAKE3 of the raw little-endian bytes of one part
    group = Merkle root of its leaves (weights, moments, weights of the version before)
    root  = Merkle root of the three groups, and of the error feedback (`Commitment.root`)

A group is the bytes of its tensors one after another, sorted by name, in row-major order. Weights have one
dtype, fp32 or bf16, and a part is `outer.part_elements` of their elements, so that their leaves are of the
parts of a base and of a pseudo-gradient. Moments may have several dtypes (`iota.model.moment_layout`); a part
of theirs has as many bytes as one of fp32 elements.
Names and shapes follow from the spec. A stage has some hundred leaves, which can be computed side by side,
and a leaf can be compared, or opened, without the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from blake3 import blake3
from torch import Tensor

from iota.protocol.merkle import EMPTY, merkle_root
from iota.protocol.receipts import Beginning, Commitment

if TYPE_CHECKING:
    from iota.compute.state import StageState

_DTYPES = (torch.float32, torch.bfloat16, torch.int8, torch.uint8)
"""Of a state's tensors."""
_FP32 = 4


def commitment(
    state: StageState, part_elements: int, beginning: Beginning | None = None, feedback: str = EMPTY
) -> Commitment:
    """The commitment to a state on the CPU. A state without moments commits to `merkle.EMPTY` for them.

    `beginning` is what the replica shows at the version that is the base, `feedback` the root of its error
    feedback where the version shows that.
    """
    return Commitment(
        weights=tensors_root(state.weights, part_elements),
        moments=merkle_root(moments_leaves(state.moments, part_elements)),
        before=tensors_root(state.before, part_elements),
        feedback=feedback,
        beginning=beginning,
    )


def tensors_root(tensors: Mapping[str, Tensor], part_elements: int) -> str:
    """Merkle root of weights on the CPU; `merkle.EMPTY` for none.

    Raises TypeError where they are not all fp32 or all bf16.
    """
    return merkle_root(tensors_leaves(tensors, part_elements))


def tensors_leaves(tensors: Mapping[str, Tensor], part_elements: int) -> list[str]:
    """BLAKE3 (hex) of each part of weights, in order. No tensor is copied, unless it is not contiguous."""
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        raise TypeError("the tensors of a group of weights have several dtypes")
    width = next((tensor.element_size() for tensor in tensors.values()), 1)
    return leaves(_buffers(tensors), part_elements * width)


def moments_leaves(moments: Mapping[str, Tensor], part_elements: int) -> list[str]:
    """The same of moments, whose dtypes may differ."""
    return leaves(_buffers(moments), moments_part_bytes(part_elements))


def moments_part_bytes(part_elements: int) -> int:
    """Bytes of a part of moments."""
    return _FP32 * part_elements


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw bytes of a state's tensor on the CPU, in row-major order. Raises TypeError for other dtypes."""
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"a tensor is {tensor.dtype}, and a state has {', '.join(map(str, _DTYPES))}")
    view: memoryview = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return view


def _buffers(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    return (tensor_bytes(tensors[name]) for name in sorted(tensors))


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
