"""`int8`: 8 bits an element, and a scale for each block of 256.

    scales    bf16, one a block: the largest magnitude / 127, rounded toward zero
    codes     int8, one an element: value / scale, rounded toward zero, within ±127

Rounding toward zero makes nothing larger, so that bounds of what goes in are bounds of what comes out
(`iota.outer.bounds`); error feedback sends the rest later.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from iota.objects.delta_sizes import INT8_BLOCK, delta_bytes
from iota.outer.partition import NotFinite, PartError, Vector
from iota.outer.short_floats import cut, read_scales, widened
from iota.spec import OuterCodec

_LARGEST: Final = 127
_BATCH: Final = 4096
"""Blocks that are encoded at a time."""


class Int8Delta:
    """A `DeltaCodec` with 8 bits an element."""

    def encode(self, part_N: Vector) -> bytes:
        """Scales, then codes, as the module describes."""
        step = _BATCH * INT8_BLOCK
        pieces = [_encoded(part_N[first : first + step]) for first in range(0, part_N.size, step)]
        return b"".join([scales for scales, _ in pieces] + [codes for _, codes in pieces])

    def decode(self, data: bytes, elements: int) -> Vector:
        """The products of codes and scales, which are exact. Raises PartError and NotFinite."""
        if len(data) != delta_bytes(OuterCodec.INT8, elements):
            raise PartError(f"{len(data)} bytes are no int8 partition of {elements} elements")
        blocks = -(-elements // INT8_BLOCK)
        scales = read_scales(data[: 2 * blocks], blocks)
        with np.errstate(over="ignore"):
            if not bool(np.isfinite(scales * np.float32(_LARGEST)).all()):
                raise NotFinite("a scale gives values that are not finite")
        codes = np.frombuffer(data, np.int8, elements, 2 * blocks)
        if bool((codes == -_LARGEST - 1).any()):
            raise PartError(f"a code is below -{_LARGEST}")
        found: Vector = codes.astype(np.float32)
        whole = elements - elements % INT8_BLOCK
        found[:whole].reshape(-1, INT8_BLOCK)[:] *= scales[: whole // INT8_BLOCK, None]
        found[whole:] *= scales[-1]
        return found


def _encoded(part_N: Vector) -> tuple[bytes, bytes]:
    """The bytes of scales and of codes of some blocks, the last of which may be shorter."""
    blocks = -(-part_N.size // INT8_BLOCK)
    padded: Vector = np.zeros((blocks, INT8_BLOCK), np.float32)
    padded.reshape(-1)[: part_N.size] = part_N
    halves = cut(np.abs(padded).max(axis=1) / np.float32(_LARGEST))
    scales = widened(halves)[:, None]
    np.divide(padded, scales, out=padded, where=scales > 0)
    padded *= scales > 0
    np.trunc(padded, out=padded)
    np.clip(padded, -_LARGEST, _LARGEST, out=padded)
    return halves.tobytes(), padded.astype(np.int8).reshape(-1)[: part_N.size].tobytes()
