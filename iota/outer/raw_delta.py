"""`none`: a pseudo-gradient without compression."""

from __future__ import annotations

from iota.outer.partition import Vector, part_bytes, read_part


class RawDelta:
    """A `DeltaCodec` that writes raw little-endian fp32."""

    def encode(self, part_N: Vector) -> bytes:
        """Raw little-endian fp32."""
        return part_bytes(part_N)

    def decode(self, data: bytes, elements: int) -> Vector:
        """The same, read. Raises PartError and NotFinite."""
        return read_part(data, elements)
