"""Sources of connections, by which a node counts them before it knows whose they are. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

MAX_SOURCES: Final = 4096
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
