"""The merge of one partition: a weighted mean that two machines compute to the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iota.outer.partition import Vector


@dataclass(frozen=True)
class Contribution:
    hotkey: str
    tokens: int
    """From counted receipts."""
    part: Vector


def merge_weights(tokens: Mapping[str, int]) -> dict[str, np.float32]:
    """a^r = tokens^r / sum, in float64 and then fp32, by hotkey in order. Raises ValueError for no tokens."""
    total = sum(tokens.values())
    if total <= 0 or any(count < 0 for count in tokens.values()):
        raise ValueError("contributions without tokens cannot be weighed: leave this stage unmerged")
    return {hotkey: np.float32(np.float64(tokens[hotkey]) / np.float64(total)) for hotkey in sorted(tokens)}


def weighted_mean(contributions: Sequence[Contribution]) -> Vector:
    """sum of a^r·D^r in order of hotkey; each product and each sum is one rounded fp32 operation."""
    if len({c.part.shape for c in contributions}) != 1:
        raise ValueError("contributions to one partition must be of one length, and at least one")
    if len({c.hotkey for c in contributions}) != len(contributions):
        raise ValueError("a replica contributes once to a partition")
    weights = merge_weights({c.hotkey: c.tokens for c in contributions})
    ordered = sorted(contributions, key=lambda c: c.hotkey)
    merged: Vector = ordered[0].part * weights[ordered[0].hotkey]
    for contribution in ordered[1:]:
        # two numpy calls: a fused multiply-add would round once and differ between machines
        product = contribution.part * weights[contribution.hotkey]
        np.add(merged, product, out=merged)
    return merged
