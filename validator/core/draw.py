"""The draw: which ops of a miner and which merges are audited. Anyone can recompute it.

    draw = BLAKE3(domain, run, hash of block B, revealed link, epoch, miner)

Block B becomes final after the seal, and the link was committed before it. So neither the miner nor the
validator can know or choose the draw.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from blake3 import blake3

from iota.protocol.receipts import Receipt
from iota.spec import AuditSpec

_DOMAIN = b"iota/draw/4\n"
"""Separates the hashes of the draw from all others. Another rule of the draw needs another number."""
_WORD = 1 << 64
"""Numbers are drawn from 64-bit words."""
_SHARES = 1 << 32
"""Chances are drawn as whole shares of so many."""
_T = TypeVar("_T")


def draw(run: str, block_hash: str, link: str, epoch: int, miner: str) -> bytes:
    """32 unforeseeable bytes. `block_hash` is hex, with or without `0x`; `run` and `link` are hex."""
    parts = (
        bytes.fromhex(run),
        bytes.fromhex(block_hash.removeprefix("0x")),
        bytes.fromhex(link),
        struct.pack("<Q", epoch),
        miner.encode(),
    )
    framed = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return blake3(_DOMAIN + framed).digest()


def choose(
    drawn: bytes, audit: AuditSpec, candidates: Sequence[Receipt], validators: int, *, certain: bool
) -> tuple[Receipt, ...]:
    """The ops of one miner that a validator audits, by seq, from its draw and the public record.

    The candidates, by seq, are cut into `audit.ops` strata (fewer where there are fewer). Of each the
    validator picks one, and audits it with a chance of one in the number of validators: all of them together
    audit `audit.ops`, on average.

    Args:
        candidates: receipts of ops that count and used the base (`SealedEpoch.auditable`).
        validators: those of the epoch's record.
        certain: it audits all that it picks.
    """
    numbers, pool = Numbers(drawn), sorted(candidates, key=lambda receipt: receipt.seq)
    chosen = []
    for low, high in strata(len(pool), audit.ops):
        wanted = numbers.one_in(validators)
        picked = pool[low + numbers.below(high - low)]
        if wanted or certain:
            chosen.append(picked)
    return tuple(chosen)


def strata(items: int, most: int) -> list[tuple[int, int]]:
    """Bounds (from, to) of so many strata of a row of items, about equally long; one item each at least."""
    count = min(most, items)
    return list(pairwise(items * n // count for n in range(count + 1))) if count else []


def choose_parts(drawn: bytes, every: int, parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """One in `every` of an epoch's merged parts, (stage, part), at least one of them; in the order drawn."""
    return choose_at_most(drawn, -(-len(parts) // every), parts)


def choose_at_most(drawn: bytes, count: int, items: Sequence[_T]) -> list[_T]:
    """So many different items, or all if there are fewer; in the order drawn."""
    numbers, pool = Numbers(drawn), list(items)
    count = min(count, len(pool))
    for place in range(count):
        other = place + numbers.below(len(pool) - place)
        pool[place], pool[other] = pool[other], pool[place]
    return pool[:count]


class Numbers:
    """Uniform numbers from the draw: BLAKE3's output stream, with rejection against modulo bias."""

    def __init__(self, drawn: bytes) -> None:
        self._hash = blake3(_DOMAIN + drawn)
        self._read = 0

    def below(self, limit: int) -> int:
        """The next number in [0, limit)."""
        largest = _WORD - _WORD % limit
        while True:
            word = int.from_bytes(self._hash.digest(length=8, seek=8 * self._read), "little")
            self._read += 1
            if word < largest:
                return word % limit

    def one_in(self, count: int) -> bool:
        """True with a chance of one in `count`. What is true for a count is true for each smaller one."""
        return self.below(_SHARES) < _SHARES // max(1, count)
