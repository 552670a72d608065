"""What keeps weights from being set, said when it begins, at widening intervals, and when it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_FIRST_S: Final = 60.0
_LONGEST_S: Final = 3600.0
LONGEST_PAUSE_S: Final = 60.0
"""The longest pause between two tries, unless a block takes longer."""


class Trouble:
    """One cause at a time. `what` begins each line; `clock` gives monotonic seconds."""

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self._what, self._clock = what, clock
        self._kind = self._text = ""
        self._since = self._next = 0.0
        self._interval = _FIRST_S
        self._tries = 0

    def tell(self, kind: str, text: str) -> None:
        """It is so (still). Another `kind` than before is another cause, and said at once."""
        now = self._clock()
        if kind != self._kind:
            self._kind, self._text, self._since, self._tries = kind, text, now, 0
            log.warning("%s: %s", self._what, text)
            self._interval = _FIRST_S
            self._next = now + self._interval
        elif now >= self._next:
            log.warning("%s for %.0f minutes now: %s", self._what, (now - self._since) / 60, text)
            self._interval = min(2 * self._interval, _LONGEST_S)
            self._next = now + self._interval
        self._tries += 1

    def over(self, kinds: str = "") -> None:
        """It is no longer so, if it was of a kind that begins with `kinds`."""
        if self._kind and self._kind.startswith(kinds):
            log.info("%s: over after %.0f s (%s)", self._what, self._clock() - self._since, self._text)
            self._kind, self._tries = "", 0

    def pause_s(self, block_time_s: float) -> float:
        """How long to wait before the next try: a block, and twice as long each time, up to a minute."""
        longest = max(LONGEST_PAUSE_S, block_time_s)
        return min(block_time_s * 2.0 ** min(max(self._tries - 1, 0), 30), longest)
