"""Leave to store one object in parts, and how an object is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PART: Final = 64 << 20
"""Least size of a part but the last, in bytes; an object of at most so many is stored by one request."""
MAX_PARTS: Final = 256
"""Most parts of one object: an answer with their URLs has about 200 KB. S3 allows 10,000."""
_STEP: Final = 1 << 20
"""Parts are multiples of it."""


@dataclass(frozen=True)
class PartUrls:
    """URL n is for part n, of `part_bytes`; the last is of what is left."""

    upload: str
    """The service's name of the upload."""
    part_bytes: int
    urls: tuple[str, ...]


def is_large(size: int) -> bool:
    """Whether an object of `size` bytes has more than one part."""
    return size > PART


def part_bytes(size: int) -> int:
    """Bytes of each part but the last of an object of `size` bytes."""
    return max(PART, -(-size // (MAX_PARTS * _STEP)) * _STEP)


def part_sizes(size: int) -> list[int]:
    """The sizes of an object's parts, in order."""
    each = part_bytes(size)
    return [min(each, size - start) for start in range(0, size, each)]
