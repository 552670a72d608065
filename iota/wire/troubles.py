"""What the log says of troubles with peers: each case of each peer once, so that none can fill it.

Anybody can make up peers, so that the lines of one case are bounded as well.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

_MOST: Final = 4096
"""Peers' cases that are remembered."""
_LINES: Final = 64.0
"""Of one case at once: more than a miner has neighbours as a rule."""
_LINE_S: Final = 60.0
"""A further one after this long."""


@dataclass
class Troubles:
    """Says what is wrong with peers in `log`."""

    log: logging.Logger
    _named: LRUCache[tuple[str, str], None] = field(default_factory=lambda: LRUCache(_MOST))
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By case: lines that may be written, and since when, in monotonic seconds."""

    def name(self, peer: str, case: str, text: str, level: int = logging.WARNING) -> None:
        """Say `text`, unless this `case` of this peer was named before, or of too many others.

        Cases must be few: nothing that a peer has written may stand in one.
        """
        if (peer, case) in self._named:
            return
        now = time.monotonic()
        left, since = self._left.get(case, (_LINES, now))
        left = min(_LINES, left + (now - since) / _LINE_S)
        if left >= 1:
            self._named[peer, case] = None
            self.log.log(level, "%s", text)
        self._left[case] = left - (left >= 1), now
