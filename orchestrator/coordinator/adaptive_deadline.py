"""Deadlines that adapt to measured durations."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import ClassVar


@dataclass
class AdaptiveDeadline:
    """median + 6·MAD of the last durations, within [min_s, max_s]; `first_s` until enough are measured.

    MAD is the median absolute deviation, which single outliers do not move.
    """

    first_s: float
    min_s: float
    max_s: float
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    """The last durations (seconds)."""
    _seconds: float | None = field(default=None, compare=False)
    """The deadline after the samples, once it was asked for."""

    MIN_SAMPLES: ClassVar = 8
    """With fewer samples the MAD is too noisy for a deadline."""

    def add(self, seconds: float) -> None:
        """Add a measured duration."""
        self.samples.append(seconds)
        self._seconds = None

    @property
    def seconds(self) -> float:
        """The deadline after the durations measured so far."""
        if self._seconds is None:
            self._seconds = min(self.max_s, max(self.min_s, self._unbounded()))
        return self._seconds

    def _unbounded(self) -> float:
        if len(self.samples) < self.MIN_SAMPLES:
            return self.first_s
        middle = median(self.samples)
        return middle + 6 * median(abs(s - middle) for s in self.samples)
