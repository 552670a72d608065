"""Deadlines that adapt to what was measured."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median


@dataclass
class AdaptiveDeadline:
    """median + 6·MAD of earlier durations, within [least, most]; `first` before measurements."""

    first: float
    least: float
    most: float
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=64))

    ENOUGH = 8

    def add(self, seconds: float) -> None:
        self.samples.append(seconds)

    @property
    def seconds(self) -> float:
        if len(self.samples) < self.ENOUGH:
            return min(self.most, max(self.first, self.least))
        middle = median(self.samples)
        mad = median(abs(s - middle) for s in self.samples)
        return min(self.most, max(self.least, middle + 6 * mad))
