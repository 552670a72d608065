"""Token buckets, which bound how often somebody has something done. Pure."""

from __future__ import annotations

from cachetools import LRUCache


class TokenBuckets:
    """A token bucket for each key. Beyond `keys` keys the least recently used ones are forgotten.

    A forgotten key starts again with a full bucket, as a new key would.
    """

    def __init__(self, rate: float, burst: float, keys: int = 65536) -> None:
        self._rate, self._burst = rate, burst
        self._levels: LRUCache[str, tuple[float, float]] = LRUCache(keys)

    def take(self, key: str, now: float, count: float = 1.0) -> float:
        """Take `count` tokens at `now` (monotonic seconds): 0.0, or the seconds until there are so many.

        `count` is at most the bucket's size.
        """
        level, since = self._levels.get(key, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - since) * self._rate)
        wait = 0.0 if level >= count else (count - level) / self._rate
        self._levels[key] = (level - count if wait == 0 else level, now)
        return wait

    def allows(self, key: str, now: float) -> bool:
        """Take a token at `now`; whether there was one."""
        return self.take(key, now) == 0
