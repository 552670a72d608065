"""Sampling: the sequences of a microbatch, by a keyed permutation that every node computes for itself.

Pass p over the data visits every sequence once, in an order keyed by (seed, p). The permutation is a
Feistel network over the smallest even number of bits that holds the count, with cycle walking (Black
and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
"""

from __future__ import annotations

import struct
from functools import lru_cache

from blake3 import blake3

from iota.console.counts import counted

ROUNDS = 8
"""Rounds of the Feistel network; part of the data format, since they decide the order."""
_MASK = (1 << 64) - 1


def sample_index(seed: int, position: int, count: int) -> int:
    """The sequence at `position` of an endless order over `count` sequences.

    Positions [p·count, (p+1)·count) are pass p, a permutation of [0, count). Raises `ValueError` for a
    negative position or no sequences.
    """
    if count < 1 or position < 0:
        raise ValueError(f"no position {position} among {counted(count, 'sequence')}: prepare more data")
    pass_number, value = divmod(position, count)
    keys = _round_keys(seed, pass_number)
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    # The domain is less than four times the count, so a walk takes few steps. It ends, because the
    # network is a permutation and the walk starts inside [0, count).
    while True:
        value = _feistel(value, half, keys)
        if value < count:
            return value


def sequence_indices(
    seed: int,
    epoch: int,
    step: int,
    index: int,
    *,
    steps: int,
    microbatches: int,
    sequences: int,
    count: int,
    first: int,
) -> list[int]:
    """Sequences of microbatch (`epoch`, `step`, `index`), in order.

    Args:
        steps: steps in an epoch (H).
        microbatches: microbatches in a step (M).
        sequences: sequences in a microbatch.
        count: sequences in the training data.
        first: place in the order at which the run begins (`data.first_sequence`).

    Raises `ValueError` for a microbatch outside these bounds.
    """
    if not (epoch >= 0 and 0 <= step < steps and 0 <= index < microbatches):
        raise ValueError(f"there is no microbatch ({epoch}, {step}, {index}) of {steps} x {microbatches}")
    place = first + ((epoch * steps + step) * microbatches + index) * sequences
    return [sample_index(seed, place + offset, count) for offset in range(sequences)]


def _feistel(value: int, half: int, keys: tuple[int, ...]) -> int:
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(x: int) -> int:
    # The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every input bit affects every output bit.
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@lru_cache(maxsize=64)
def _round_keys(seed: int, pass_number: int) -> tuple[int, ...]:
    material = blake3(f"iota/sample/1/{seed}/{pass_number}".encode()).digest(length=8 * ROUNDS)
    return struct.unpack(f"<{ROUNDS}Q", material)
