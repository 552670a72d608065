"""`weighted-mean`: the mean of one partition, weighted by tokens and bitwise equal on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from iota.outer.partition import Vector


def merge_weights(tokens: Mapping[str, int]) -> dict[str, np.float32]:
    """Each hotkey's share of the tokens, divided in float64 and rounded to fp32.

    Raises ValueError for negative counts, or if all are zero.
    """
    total = sum(tokens.values())
    if total <= 0 or any(count < 0 for count in tokens.values()):
        raise ValueError("contributions without tokens cannot be weighed: leave this stage unmerged")
    return {hotkey: np.float32(np.float64(tokens[hotkey]) / np.float64(total)) for hotkey in sorted(tokens)}


def weighted_mean(tokens: Mapping[str, int], read: Callable[[str], Vector]) -> Vector:
    """The sum of share times part, in order of hotkey. Each product and sum is rounded to fp32 once.

    `read` gives a hotkey's part and is called in that order, once for each: one part is in memory beside the
    sum. Raises ValueError for parts of different lengths, or no tokens.
    """
    weights = merge_weights(tokens)
    first, *others = sorted(weights)
    merged: Vector = read(first) * weights[first]
    for hotkey in others:
        part = read(hotkey)
        if part.shape != merged.shape:
            raise ValueError("contributions to one partition must be of one length")
        # Two numpy calls: a fused multiply-add rounds once, and whether one is used depends on the machine.
        np.add(merged, part * weights[hotkey], out=merged)
    return merged
