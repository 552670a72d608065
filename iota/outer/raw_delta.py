"""`none`: a pseudo-gradient without compression."""

from __future__ import annotations

from iota.outer.partition import Vector, part_bytes, read_part


class RawDelta:
    """A `DeltaCodec` that writes raw little-endian fp32."""

    def encode(self, part: Vector) -> bytes:
        return part_bytes(part)

    def decode(self, data: bytes, elements: int) -> Vector:
        return read_part(data, elements)
