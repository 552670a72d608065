"""Exponential backoff with jitter."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

_MAX_DOUBLINGS: Final = 64
"""Beyond any `max_s`, and far from the end of a float: some calls are tried for as long as it takes."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses that double with each failure in a row, from `first_s` seconds to `max_s`.

    Each is multiplied by a number drawn from the range `jitter`, so that nodes that were cut off together do
    not return together. Which errors are tried again, and how often or how long, is the caller's to decide.
    """

    first_s: float
    max_s: float = math.inf
    jitter: tuple[float, float] = (0.75, 1.25)

    def pause_s(self, failures: int, hint_s: float | None = None) -> float:
        """Seconds to wait after `failures` in a row, at least one.

        `hint_s` is what the other side asked for, as in Retry-After: it knows better, and replaces the
        pause unless it is 0.
        """
        doubled = self.first_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
        return (hint_s or min(doubled, self.max_s)) * random.uniform(*self.jitter)
