"""`none`: partitions of a pseudo-gradient as raw little-endian fp32."""

from __future__ import annotations

from iota.outer.partition import Vector, part_bytes, read_part


class RawDelta:
    def encode(self, part: Vector) -> bytes:
        return part_bytes(part)

    def decode(self, data: bytes, elements: int) -> Vector:
        return read_part(data, elements)
