"""Sizes of encoded partitions of pseudo-gradients and of merges, by codec: exact but for a sparse merge.

The formats themselves are in `iota/outer/`; what stands here must be known before a byte is read.
"""

from __future__ import annotations

from typing import Final

from iota.spec import OuterCodec

INT8_BLOCK: Final = 256
"""Elements that share a scale in `int8`."""
SPARSE_CHUNK: Final = 4096
"""Elements of which a sparse codec sends `SPARSE_KEPT`: an index has 12 bits."""
SPARSE_KEPT: Final = {OuterCodec.SPARSE: 256, OuterCodec.SPARSE64: 64}
"""Powers of two, which sums by halves need."""
_FP32: Final = 4
_BF16: Final = 2


def delta_bytes(codec: OuterCodec, elements: int) -> int:
    """Bytes of a partition of `elements` of a pseudo-gradient."""
    match codec:
        case OuterCodec.NONE:
            return _FP32 * elements
        case OuterCodec.INT8:
            return elements + _BF16 * -(-elements // INT8_BLOCK)
        case OuterCodec.SPARSE | OuterCodec.SPARSE64:
            # Of a chunk: two scales of 16 bits, then 12 bits of index and 2 of value for each element.
            kept = SPARSE_KEPT[codec]
            return (4 + kept * 12 // 8 + kept * 2 // 8) * -(-elements // SPARSE_CHUNK)


def merged_sizes(codec: OuterCodec, elements: int, contributions: int) -> range:
    """The numbers of bytes that a merged partition of `elements` may have, of so many contributions."""
    if not codec.is_sparse:
        return range(_FP32 * elements, _FP32 * elements + 1)
    bits, sent = -(-elements // 8), contributions * SPARSE_KEPT[codec] * -(-elements // SPARSE_CHUNK)
    return range(bits, bits + _FP32 * min(elements, sent) + 1, _FP32)


def merged_bytes(codec: OuterCodec, elements: int, contributions: int) -> int:
    """The most of them."""
    return merged_sizes(codec, elements, contributions)[-1]


def unit(codec: OuterCodec) -> int:
    """Elements that a codec encodes together, from a partition's start on."""
    if codec.is_sparse:
        return SPARSE_CHUNK
    return {OuterCodec.NONE: 1, OuterCodec.INT8: INT8_BLOCK}[codec]
