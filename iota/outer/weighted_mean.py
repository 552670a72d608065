"""`weighted-mean`: the mean of one partition, weighted by tokens and bitwise equal on every machine.

With tokens t and steps n of each replica the merge is the sum of w D, w = min(1, t·max(n) / sum of t·n).
Where all made the same steps that is the mean by tokens. Who joined late has changed its weights less: as
a mean by tokens the merge would be smaller the more of them there are. This one is as large as the change of
a replica with the most steps, whoever else is in it, and nobody's change is enlarged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from iota.outer.partition import Vector


def merge_weights(tokens: Mapping[str, int], steps: Mapping[str, int] | None = None) -> dict[str, np.float32]:
    """Each hotkey's weight, divided once in float64 and rounded to fp32.

    `steps` are those that each one's change is of, at least 1; by default all made as many. Raises ValueError
    for negative counts, or if all are zero.
    """
    made = steps or dict.fromkeys(tokens, 1)
    total = sum(count * made[hotkey] for hotkey, count in tokens.items())
    if total <= 0 or any(count < 0 for count in tokens.values()):
        raise ValueError("contributions without tokens cannot be weighed: leave this stage unmerged")
    most = max(made[hotkey] for hotkey in tokens)
    return {hotkey: np.float32(min(1.0, tokens[hotkey] * most / total)) for hotkey in sorted(tokens)}


def weighted_mean(
    tokens: Mapping[str, int], read: Callable[[str], Vector], steps: Mapping[str, int] | None = None
) -> Vector:
    """The sum of weight times part, in order of hotkey. Each product and sum is rounded to fp32 once.

    `read` gives a hotkey's part and is called in that order, once for each: one part is in memory beside the
    sum. Raises ValueError for parts of different lengths, or no tokens.
    """
    weights = merge_weights(tokens, steps)
    first, *others = sorted(weights)
    merged: Vector = read(first) * weights[first]
    for hotkey in others:
        part = read(hotkey)
        if part.shape != merged.shape:
            raise ValueError("contributions to one partition must be of one length")
        # Two numpy calls: a fused multiply-add rounds once, and whether one is used depends on the machine.
        np.add(merged, part * weights[hotkey], out=merged)
    return merged
