"""Virtual time: a queue of actions that run in the order of their times."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class VirtualClock:
    """A clock that jumps from one action to the next; equal times keep the order of scheduling."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Schedule `action` for `delay_s` virtual seconds from now."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._count, action))

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Run actions until `until` holds (True), or until `limit_s` virtual seconds have passed (False)."""
        end = self.now + limit_s
        while not until():
            at, _, action = heapq.heappop(self._queue)
            if at > end:
                return False
            self.now = max(self.now, at)
            action()
        return True
