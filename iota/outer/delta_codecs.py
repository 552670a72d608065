"""Table of pseudo-gradient codecs. A new codec is a file of its own and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from iota.outer.int8_delta import Int8Delta
from iota.outer.partition import Vector
from iota.outer.raw_delta import RawDelta
from iota.outer.sparse_delta import SparseDelta
from iota.spec import OuterCodec


class DeltaCodec(Protocol):
    """Format of a partition of a pseudo-gradient, between its replica and the miners that merge it.

    Both functions are bitwise deterministic on every machine, because validators repeat `encode` and compare
    digests. An encoded partition has the bytes of `iota.objects.delta_bytes`. What is decoded is no larger
    than what was encoded, and neither is the difference of the two: over each of the codec's units (`unit` in
    `iota.objects.delta_sizes`) neither the largest magnitude nor the L2 norm grows, but for rounding.
    """

    def encode(self, part_N: Vector) -> bytes:
        """The bytes of one partition, a finite fp32 vector."""

    def decode(self, data: bytes, elements: int) -> Vector:
        """The partition of `elements` finite fp32 values.

        Raises PartError for bytes that are not one; for NaN or infinity its NotFinite.
        """


_CODECS: Final[Mapping[OuterCodec, DeltaCodec]] = {
    OuterCodec.NONE: RawDelta(),
    OuterCodec.INT8: Int8Delta(),
    OuterCodec.SPARSE: SparseDelta(OuterCodec.SPARSE),
    OuterCodec.SPARSE64: SparseDelta(OuterCodec.SPARSE64),
}


def open_delta_codec(codec: OuterCodec) -> DeltaCodec:
    """The codec of that name in a spec."""
    return _CODECS[codec]
