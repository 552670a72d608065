"""What the log says of troubles with peers: each case of each peer once, so that none can fill it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

_MOST: Final = 4096
"""Peers' cases that are remembered."""


@dataclass
class Troubles:
    """Says what is wrong with peers in `log`."""

    log: logging.Logger
    _named: LRUCache[tuple[str, str], None] = field(default_factory=lambda: LRUCache(_MOST))

    def name(self, peer: str, case: str, text: str, level: int = logging.WARNING) -> None:
        """Say `text`, unless this `case` of this peer was named before."""
        if (peer, case) not in self._named:
            self._named[peer, case] = None
            self.log.log(level, "%s", text)
