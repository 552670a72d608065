"""Error feedback: what a codec did not send is added, decayed, to the next epoch's pseudo-gradient.

    x <- beta·f + D        D^ = decode(encode(x))        f <- x - D^

Each operation is elementwise in fp32 with one rounding, and f is kept in bf16, rounded toward zero, so that
it takes half of the disk and of the evidence. A replica begins with f = 0. (Seide et al. 2014; Karimireddy et
al. 2019; the decay and its 0.95 are SparseLoCo's, Sarfi et al. 2025.)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from blake3 import blake3

from iota.outer.delta_codecs import open_delta_codec
from iota.outer.partition import Vector
from iota.outer.short_floats import cut, cut_in_place, read_halves, widened
from iota.protocol.merkle import merkle_root
from iota.spec import OuterSpec


def encode_part(outer: OuterSpec, change_N: Vector, feedback_N: Vector | None) -> tuple[bytes, Vector | None]:
    """The bytes of one partition D of a pseudo-gradient, and the feedback that is left.

    No feedback means zeros. `none` sends everything, and leaves none.
    """
    codec = open_delta_codec(outer.codec)
    if not outer.codec.has_feedback:
        return codec.encode(change_N), None
    x_N: Vector = np.zeros_like(change_N) if feedback_N is None else feedback_N * np.float32(outer.beta)
    np.add(x_N, change_N, out=x_N)
    data = codec.encode(x_N)
    np.subtract(x_N, codec.decode(data, x_N.size), out=x_N)
    return data, cut_in_place(x_N)


def write_feedback(feedback_N: Vector) -> bytes:
    """One partition's feedback as little-endian bf16, which it is exactly."""
    return cut(feedback_N).tobytes()


def read_feedback(data: bytes, elements: int) -> Vector:
    """The same, read. Raises PartError and NotFinite."""
    return widened(read_halves(data, elements))


def feedback_leaf(data: bytes) -> str:
    """BLAKE3 (hex) of one partition's feedback, as it is written."""
    return blake3(data, max_threads=blake3.AUTO).hexdigest()


def feedback_root(leaves: Iterable[str]) -> str:
    """Merkle root over the partitions' leaves; `merkle.EMPTY` stands for no feedback."""
    return merkle_root(list(leaves))
