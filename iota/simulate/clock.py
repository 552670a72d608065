"""Virtual time: actions in the order of their times, one after the other."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class VirtualClock:
    """Seconds that pass only from one action to the next; equal times keep their order."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._count, action))

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Act until `until` holds (True), or until `limit_s` have passed (False)."""
        end = self.now + limit_s
        while not until():
            at, _, action = heapq.heappop(self._queue)
            if at > end:
                return False
            self.now = max(self.now, at)
            action()
        return True
