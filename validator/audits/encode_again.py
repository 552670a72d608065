"""Encodes a pseudo-gradient again, from two sets of weights and the feedback that a miner delivered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blake3 import blake3
from torch import Tensor

from iota.compute.delta_parts import encoded_parts
from iota.outer.error_feedback import feedback_leaf, feedback_root, read_feedback, write_feedback
from iota.outer.partition import Vector
from iota.spec import OuterSpec
from validator.core.jobs import Encoded

_BF16 = 2


def encode_again(
    outer: OuterSpec, base: Mapping[str, Tensor], final: Mapping[str, Tensor], held: bytes
) -> Encoded:
    """What a miner stores of `base` - `final` and what it keeps, in the memory of one part.

    Both hold a replica's weights on the CPU, of the same names, shapes and dtype. `held` is the feedback of
    the whole stage, empty where there is none. Raises PartError where what is to be sent is not finite.
    """
    pieces = list(_pieces(held, outer.part_elements))

    def before(number: int, elements: int) -> Vector | None:
        return read_feedback(bytes(pieces[number]), elements) if pieces else None

    digests, leaves = [], []
    for made in encoded_parts(outer, base, final, before):
        digests.append(blake3(made.data).hexdigest())
        if made.left is not None:
            leaves.append(feedback_leaf(write_feedback(made.left)))
    return Encoded(tuple(digests), feedback_root(leaves))


def whole_feedback_root(held: bytes, part_elements: int) -> str:
    """Root of the feedback of a whole stage. Raises PartError where a value is not finite."""
    leaves = []
    for piece in map(bytes, _pieces(held, part_elements)):
        read_feedback(piece, len(piece) // _BF16)
        leaves.append(feedback_leaf(piece))
    return feedback_root(leaves)


def _pieces(held: bytes, part_elements: int) -> Iterator[memoryview]:
    size, view = _BF16 * part_elements, memoryview(held)
    return (view[first : first + size] for first in range(0, len(view), size))
