"""Bounds from measured distances: the distance that an honest replay passes but with a given chance.

The largest tenth of the distances is taken for the tail of a Pareto distribution, which is a straight line in
a plot of log P(distance > x) over log x. Hill's estimate of its index is the mean of log(x / u) over the
distances x above the tenth's lower end u. A Pareto tail is heavier than that of sums of rounding errors: it
errs towards wide bounds, and needs few samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_SHARE: Final = 10
"""One in so many distances is of the tail."""
_LEAST: Final = 10
"""Least distances of a tail."""
_LARGEST: Final = math.log(1e300)
QUANTILES: Final = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Tail:
    """A fitted tail: P(distance > x) = share · (x / start) ** (-1 / index)."""

    start: float
    share: float
    index: float

    def beyond(self, chance: float) -> float:
        """The distance that is passed with a chance; at most 1e300, so that it is a number."""
        if chance >= self.share or self.start == 0:
            return self.start
        return math.exp(min(_LARGEST, math.log(self.start) + self.index * math.log(self.share / chance)))


def fit_tail(distances: Sequence[float]) -> Tail:
    """Fit the tail of some distances, none of which is negative or infinite.

    Zeros (equal bits) count as distances, and not as parts of the tail: with too few others the tail begins
    at the smallest of these. Raises ValueError without any distance.
    """
    if not distances:
        raise ValueError("there is no distance to fit a tail to")
    positive = sorted(d for d in distances if d > 0)
    count = min(max(_LEAST, len(distances) // _SHARE), len(positive) - 1)
    if count < 1:
        return Tail(max(distances), 1 / len(distances), 0.0)
    start, above = positive[-count - 1], positive[-count:]
    return Tail(start, count / len(distances), sum(math.log(x / start) for x in above) / count)


def quantiles(distances: Sequence[float]) -> tuple[float, float, float, float]:
    """Median, 90 %, 99 % and largest: of the sorted distances, the first that is not below the share."""
    ordered = sorted(distances)
    median, ninety, ninety_nine, largest = (ordered[math.ceil(q * len(ordered)) - 1] for q in QUANTILES)
    return median, ninety, ninety_nine, largest
