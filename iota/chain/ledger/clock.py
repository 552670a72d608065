"""Block numbers from the time, and block hashes that nobody outside can foresee."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

CHECKPOINT_BLOCKS: Final = 1024
"""Hashes are stored at multiples of this; those between are computed from the one before."""


@dataclass(frozen=True, slots=True)
class BlockClock:
    """Block n begins `n * block_time_s` after genesis; both in Unix seconds."""

    genesis_s: float
    block_time_s: float

    def number(self, now_s: float) -> int:
        """The block that the moment lies in; 0 before genesis."""
        number = max(0, math.floor((now_s - self.genesis_s) / self.block_time_s))
        # Division and multiplication round differently; the start of a block belongs to it.
        return number + 1 if self.start(number + 1) <= now_s else number

    def start(self, number: int) -> float:
        """Start of a block, Unix seconds."""
        return self.genesis_s + number * self.block_time_s


def genesis_hash(seed: bytes) -> bytes:
    """The hash of block 0. `seed` is 32 secret bytes that never leave the ledger."""
    return blake3(b"iota/ledger-genesis/1", key=seed).digest()


def next_hash(previous: bytes, number: int, seed: bytes) -> bytes:
    """The hash of block `number`: BLAKE3 of the previous hash and the number, keyed with the seed."""
    return blake3(previous + number.to_bytes(8, "little"), key=seed).digest()


def hashes_after(number: int, digest: bytes, seed: bytes, last: int) -> Iterator[tuple[int, bytes]]:
    """The blocks from `number + 1` to `last` with their hashes, given that of `number`."""
    for following in range(number + 1, last + 1):
        digest = next_hash(digest, following, seed)
        yield following, digest


def hash_of(number: int, known: int, digest: bytes, seed: bytes) -> bytes:
    """The hash of block `number`, given that of an earlier block `known`."""
    for following in range(known + 1, number + 1):
        digest = next_hash(digest, following, seed)
    return digest
