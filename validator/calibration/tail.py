"""Bounds from measured distances: the distance that an honest replay passes but with a given chance.

What the largest tenth of the distances exceeds its lower end u by is taken to have a generalised Pareto
distribution, as exceedances of a high threshold have in the limit (Pickands 1975). Its shape is fitted by
probability-weighted moments (Hosking and Wallis 1987), which need few samples. It is not below 0: a tail that
ends is taken for an exponential one.
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
_MAX_SHAPE: Final = 0.9
"""At a shape of 1 a tail has no mean."""
QUANTILES: Final = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Tail:
    """P(distance > start + y) = share · (1 + shape · y / scale) ** (-1 / shape); exponential at shape 0."""

    start: float
    share: float
    shape: float
    scale: float

    def beyond(self, chance: float) -> float:
        """The distance that is passed with a chance."""
        if chance >= self.share:
            return self.start
        times = self.share / chance
        growth = (times**self.shape - 1) / self.shape if self.shape else math.log(times)
        return self.start + self.scale * growth


def fit_tail(distances: Sequence[float]) -> Tail:
    """Fit the tail of some distances, none of which is negative or infinite.

    Raises ValueError without any distance.
    """
    if not distances:
        raise ValueError("there is no distance to fit a tail to")
    ordered = sorted(distances)
    count = min(max(_LEAST, len(ordered) // _SHARE), len(ordered) - 1)
    if count < 1:
        return Tail(ordered[0], 1.0, 0.0, 0.0)
    start = ordered[-count - 1]
    above = [value - start for value in ordered[-count:]]
    mean = sum(above) / count
    weighted = sum((1 - (at + 0.65) / count) * y for at, y in enumerate(above)) / count
    apart = mean - 2 * weighted
    shape = min(_MAX_SHAPE, max(0.0, 2 - mean / apart)) if apart > 0 else 0.0
    return Tail(start, count / len(ordered), shape, mean * (1 - shape))


def quantiles(distances: Sequence[float]) -> tuple[float, float, float, float]:
    """Median, 90 %, 99 % and largest: of the sorted distances, the first that is not below the share."""
    ordered = sorted(distances)
    median, ninety, ninety_nine, largest = (ordered[math.ceil(q * len(ordered)) - 1] for q in QUANTILES)
    return median, ninety, ninety_nine, largest
