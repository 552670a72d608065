"""Block numbers from the time, and block hashes that only the ledger can predict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

CHECKPOINT_BLOCKS: Final = 1024
"""Hashes are stored at multiples of this number; the others are computed from the last one stored."""


@dataclass(frozen=True, slots=True)
class BlockClock:
    """Numbers blocks: block n starts at `genesis_s + n * block_time_s`, in Unix seconds."""

    genesis_s: float
    block_time_s: float

    def number(self, now_s: float) -> int:
        """The number of the block at `now_s`; 0 before genesis."""
        number = max(0, math.floor((now_s - self.genesis_s) / self.block_time_s))
        # Division and multiplication round differently, and a block includes its start.
        return number + 1 if self.start(number + 1) <= now_s else number

    def start(self, number: int) -> float:
        """Start of a block, Unix seconds."""
        return self.genesis_s + number * self.block_time_s


def genesis_hash(seed: bytes) -> bytes:
    """The hash of block 0. `seed` is 32 secret bytes that never leave the ledger."""
    return blake3(b"iota/ledger-genesis/1", key=seed).digest()


def hashes_after(number: int, digest: bytes, seed: bytes, last: int) -> Iterator[tuple[int, bytes]]:
    """(number, hash) of the blocks from `number + 1` to `last`; `digest` is the hash of block `number`.

    A hash is BLAKE3 of the previous hash and the block's number, keyed with the seed.
    """
    for following in range(number + 1, last + 1):
        digest = _next_hash(digest, following, seed)
        yield following, digest


def hash_of(number: int, known: int, digest: bytes, seed: bytes) -> bytes:
    """The hash of block `number`; `digest` is the hash of the earlier block `known`."""
    for following in range(known + 1, number + 1):
        digest = _next_hash(digest, following, seed)
    return digest


def _next_hash(previous: bytes, number: int, seed: bytes) -> bytes:
    return blake3(previous + number.to_bytes(8, "little"), key=seed).digest()
