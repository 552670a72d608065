"""Exponential backoff with jitter, for all retries."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

_MAX_DOUBLINGS: Final = 64
"""Above any `max_s`, and without overflow of a float in calls that are retried without end."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses that double with each consecutive failure, from `first_s` seconds to `max_s`.

    Each is multiplied by a random factor in the range `jitter`, so that nodes that fail together do not retry
    together. The caller decides which errors to retry, and how often or how long.
    """

    first_s: float
    max_s: float = math.inf
    jitter: tuple[float, float] = (0.75, 1.25)

    def pause_s(self, failures: int, hint_s: float | None = None) -> float:
        """Seconds to wait after `failures` consecutive failures, which are 1 or more.

        `hint_s` is the pause that the server asked for, as in Retry-After. It only lengthens the pause: with
        a hint of a microsecond, a faulty or hostile server would make its clients spin.
        """
        doubled = self.first_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
        return max(hint_s or 0.0, min(doubled, self.max_s)) * random.uniform(*self.jitter)
