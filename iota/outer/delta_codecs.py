"""Table of pseudo-gradient codecs. A new codec is a file of its own and an entry here."""

from __future__ import annotations

from typing import Protocol

from iota.outer.partition import Vector
from iota.outer.raw_delta import RawDelta


class DeltaCodec(Protocol):
    """Format of a partition of a pseudo-gradient, between its replica and the miners that merge it.

    Both functions are bitwise deterministic, because validators repeat `encode` and compare digests. An
    encoded partition is no larger than raw fp32, which is the bound of `iota.objects.max_bytes`.
    """

    def encode(self, part: Vector) -> bytes:
        """The bytes of one partition, a finite fp32 vector."""

    def decode(self, data: bytes, elements: int) -> Vector:
        """The partition of `elements` finite fp32 values.

        Raises PartError for bytes that are not one; for NaN or infinity its NotFinite.
        """


_CODECS: dict[str, DeltaCodec] = {"none": RawDelta()}


def open_delta_codec(name: str = "none") -> DeltaCodec:
    """The codec `name`. Raises ValueError for an unknown name, listing the known ones."""
    if name not in _CODECS:
        raise ValueError(f"no pseudo-gradient codec is called {name!r}: this build has {', '.join(_CODECS)}")
    return _CODECS[name]
