"""How many connections from one source a node looks at, before it knows whose they are. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

from cachetools import LRUCache

_MAX_SOURCES: Final = 4096
"""Sources that are remembered; an older one begins anew."""


def source_of(address: str) -> str:
    """What connections from an IP address are counted by: of IPv6 its /64 network, all of which one host has.

    A text that is no address counts as itself.
    """
    try:
        ip = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None and not ip.is_loopback:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


class AcceptLimits:
    """A bucket of tokens for each source: `burst` at once, and `rate` a second after that."""

    def __init__(self, *, burst: int = 20, rate: float = 2.0) -> None:
        self._burst, self._rate = burst, rate
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(_MAX_SOURCES)

    def allows(self, source: str, now: float) -> bool:
        """Whether one more connection from `source` is taken at `now` (seconds); takes a token."""
        left, since = self._buckets.get(source, (float(self._burst), now))
        left = min(self._burst, left + max(0.0, now - since) * self._rate)
        allowed = left >= 1
        self._buckets[source] = (left - allowed, now)
        return allowed
