"""Merkle trees over digests (BLAKE3): a root commits to a list, and a path proves one of its entries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from blake3 import blake3

EMPTY: Final = "0" * 64
"""The root of no digests."""
MAX_PATH: Final = 32
"""Longest path: that of a tree with 2^32 leaves."""


def merkle_root(digests: Sequence[str]) -> str:
    """Root (hex) of a binary Merkle tree over hex digests; `EMPTY` for none.

    Leaves and inner nodes have different prefixes, so that neither passes for the other (as in RFC 6962). A
    last node without a partner moves up a level unchanged.
    """
    return _levels(digests)[-1][0].hex() if digests else EMPTY


@cache
def zeros_root(size: int, part: int) -> str:
    """Root of the digests of so many zero bytes in parts of `part` bytes, of which two at most are hashed."""
    whole, rest = divmod(size, part)
    parts = [blake3(bytes(part)).hexdigest()] * whole if whole else []
    return merkle_root(parts + [blake3(bytes(rest)).hexdigest()] * bool(rest))


def merkle_paths(digests: Sequence[str]) -> list[tuple[str, ...]]:
    """The path of each digest: the digests (hex) beside it on the way to the root, from the leaf up."""
    levels = _levels(digests) if digests else []
    return [
        tuple(
            level[(at >> depth) ^ 1].hex()
            for depth, level in enumerate(levels)
            if (at >> depth) ^ 1 < len(level)
        )
        for at in range(len(digests))
    ]


def merkle_root_of(digest: str, at: int, count: int, path: Sequence[str]) -> str | None:
    """The root of the tree of `count` digests with this one at `at`; None for an impossible path."""
    if not 0 <= at < count or len(path) > MAX_PATH:
        return None
    node, rest = _leaf(digest), list(path)
    while count > 1:
        if at ^ 1 < count:
            if not rest:
                return None
            beside = bytes.fromhex(rest.pop(0))
            node = _parent(beside, node) if at & 1 else _parent(node, beside)
        at, count = at >> 1, (count + 1) >> 1
    return None if rest else node.hex()


def _leaf(digest: str) -> bytes:
    return blake3(b"\x00" + bytes.fromhex(digest)).digest()


def _parent(left: bytes, right: bytes) -> bytes:
    return blake3(b"\x01" + left + right).digest()


def _levels(digests: Sequence[str]) -> list[list[bytes]]:
    """The nodes of each level, from the leaves to the root."""
    levels = [[_leaf(digest) for digest in digests]]
    while len(below := levels[-1]) > 1:
        above = [_parent(a, b) for a, b in zip(below[::2], below[1::2], strict=False)]
        levels.append(above + ([below[-1]] if len(below) % 2 else []))
    return levels


class MerkleFrontier:
    """The root of a list that grows, in memory of the logarithm of its length.

    Equal to `merkle_root` of the whole list: the tree splits at powers of two, so what is kept are the roots
    of its complete subtrees, the largest first.
    """

    __slots__ = ("_peaks", "count")

    def __init__(self) -> None:
        self.count = 0
        """Digests so far."""
        self._peaks: tuple[bytes, ...] = ()
        """A tuple, which the garbage collector need not follow: there is a tree for each miner and epoch."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MerkleFrontier):
            return NotImplemented
        return (self.count, self._peaks) == (other.count, other._peaks)

    __hash__ = None  # type: ignore[assignment]

    def append(self, digest: str) -> None:
        """Add a digest (hex) at the end."""
        node, peaks, below = _leaf(digest), self._peaks, self.count
        while below & 1:
            node, peaks, below = _parent(peaks[-1], node), peaks[:-1], below >> 1
        self._peaks = (*peaks, node)
        self.count += 1

    @property
    def root(self) -> str:
        """The root (hex); `EMPTY` for no digests."""
        if not self._peaks:
            return EMPTY
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = _parent(peak, node)
        return node.hex()
