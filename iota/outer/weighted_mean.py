"""`weighted-mean`: the mean of one partition, weighted by tokens and bitwise equal on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from iota.outer.partition import ReplicaPart, Vector


def merge_weights(tokens: Mapping[str, int]) -> dict[str, np.float32]:
    """Each hotkey's share of the tokens, divided in float64 and rounded to fp32.

    Raises ValueError for negative counts, or if all are zero.
    """
    total = sum(tokens.values())
    if total <= 0 or any(count < 0 for count in tokens.values()):
        raise ValueError("contributions without tokens cannot be weighed: leave this stage unmerged")
    return {hotkey: np.float32(np.float64(tokens[hotkey]) / np.float64(total)) for hotkey in sorted(tokens)}


def weighted_mean(parts: Sequence[ReplicaPart]) -> Vector:
    """The sum of share times part, in order of hotkey. Each product and sum is rounded to fp32 once.

    Raises ValueError for parts of different lengths, two parts of one replica, or no tokens.
    """
    if len({each.part.shape for each in parts}) != 1:
        raise ValueError("contributions to one partition must be of one length, and at least one")
    if len({each.hotkey for each in parts}) != len(parts):
        raise ValueError("a replica contributes once to a partition")
    weights = merge_weights({each.hotkey: each.tokens for each in parts})
    first, *others = sorted(parts, key=lambda each: each.hotkey)
    merged: Vector = first.part * weights[first.hotkey]
    for each in others:
        # Two numpy calls: a fused multiply-add rounds once, and whether one is used depends on the machine.
        product = each.part * weights[each.hotkey]
        np.add(merged, product, out=merged)
    return merged
