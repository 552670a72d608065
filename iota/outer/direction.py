"""Which contributions to a merge go against the others: their direction is that of the others, reversed.

A pseudo-gradient at full size passes its bounds in any direction. Replicas of a stage, from one base, move
mostly the same way: who goes clearly the other way, against the mean of the others by tokens, is left out. It
is no proof of a lie, and nobody is charged for it: audits say who lied.

"Clearly": the cosine is below `-LEAST`, and the scalar product is beyond what signs drawn at random give but
for a chance of 1e-9, whatever the sizes of the elements. The one that is furthest the other way is left out
first, and the others are looked at again without it: what it adds to their means may have hidden them, or
shown them in a false light. More than half always stay; of two nobody can say which one is right.

It is computed of a sample: every so many blocks of a partition, from one on that follows from the digests of
all contributions. Who makes one does not know those of the others, and so not which blocks are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from blake3 import blake3

from iota.outer.fixed_sums import fixed_sum, products
from iota.outer.partition import Vector
from iota.spec import OuterCodec

LEAST: Final = {codec: 0.15 if codec.is_sparse else 0.25 for codec in OuterCodec}
"""Cosine beyond which it is clear. Of honest replicas that learn nothing it was 0.19 at the most, and 0.08
with `sparse`, of whose elements two replicas have few in common (docs/training.md)."""
DEVIATIONS: Final = 6.0
"""The scalar product is so many standard deviations below 0, for signs that are drawn at random."""
BLOCK: Final = 4096
SAMPLE: Final = 64
"""Blocks of a sample, at the least, of a partition that has so many."""


def sample_start(digests: Iterable[str]) -> int:
    """The number that a sample's first block follows from, from the digests of all contributions."""
    return int.from_bytes(blake3("\n".join(sorted(digests)).encode()).digest()[:8])


def sampled(part_N: Vector, start: int) -> Vector:
    """The blocks of a partition that are looked at, as a copy; a small one itself."""
    step = part_N.size // BLOCK // SAMPLE
    if step < 2:
        return part_N
    blocks_CB = part_N[: part_N.size // BLOCK * BLOCK].reshape(-1, BLOCK)
    return blocks_CB[start % step :: step].reshape(-1)


def opposed(codec: OuterCodec, samples: Mapping[str, Vector], tokens: Mapping[str, int]) -> list[str]:
    """Those of the contributions that go clearly against the others, in the order in which they are left out.

    `samples` are of one length.
    """
    total, left = sum(tokens[hotkey] for hotkey in samples), sorted(samples)
    found: list[str] = []
    shares = {hotkey: np.float32(tokens[hotkey] / total) for hotkey in left} if total else {}
    while total and len(left) > 2 and 2 * (len(found) + 1) < len(samples):
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is clear of nobody
            sum_N: Vector = np.zeros_like(samples[left[0]])
            for hotkey in left:
                sum_N += samples[hotkey] * shares[hotkey]
            worst = min((_cosine(samples[h], sum_N - samples[h] * shares[h]), h) for h in left)
        if worst[0] > -LEAST[codec]:
            break
        found.append(worst[1])
        left.remove(worst[1])
    return found


def _cosine(own_N: Vector, others_N: Vector) -> float:
    """The cosine of two vectors where it is clearly below 0; else 0."""
    both = products(own_N, others_N)
    spread, dot = fixed_sum(both * both), fixed_sum(both)
    if not (dot < 0 and dot * dot > DEVIATIONS * DEVIATIONS * spread):
        return 0.0
    return dot / math.sqrt(fixed_sum(products(own_N, own_N)) * fixed_sum(products(others_N, others_N)))
