"""The table of pseudo-gradient codecs. A new codec is a file of its own and a line here."""

from __future__ import annotations

from typing import Protocol

from iota.outer.partition import Vector
from iota.outer.raw_delta import RawDelta


class DeltaCodec(Protocol):
    """How a partition of a pseudo-gradient is written by its replica, and read by who merges it.

    Both directions are a function of their arguments to the bit: validators repeat the first and hold its
    digest against the replica's. An encoded partition is no larger than raw fp32, which
    `iota.objects.max_bytes` allows.
    """

    def encode(self, part: Vector) -> bytes:
        """The bytes of one partition."""

    def decode(self, data: bytes, elements: int) -> Vector:
        """`elements` finite fp32 values. Raises PartError for bytes that hold anything else."""


_CODECS: dict[str, DeltaCodec] = {"none": RawDelta()}


def open_delta_codec(name: str = "none") -> DeltaCodec:
    """Raises ValueError for an unknown name, listing the known ones."""
    if name not in _CODECS:
        raise ValueError(f"no pseudo-gradient codec is called {name!r}: this build has {', '.join(_CODECS)}")
    return _CODECS[name]
