"""Which addresses a node connects to because its orchestrator named them in a URL.

A presigned URL may lead to a service that the node can reach and the orchestrator cannot: of the node's own
machine, of its private network, or a cloud's metadata at 169.254.169.254. So it must lead to an address that
is no nearer than the orchestrator's own:

| the orchestrator is on | its URLs may lead to |
|---|---|
| a public address | public addresses |
| a private one (10.0.0.0/8, 192.168.0.0/16, 100.64.0.0/10, fc00::/7, ...) | public and private ones |
| loopback | public and private ones, and loopback |
| a link-local one (169.254.0.0/16, fe80::/10) | public, private and link-local ones |

A cloud's metadata at any other address (`_METADATA`) counts as link-local.

What is judged is the address that a socket is about to be connected to, so it does not matter what a name
resolved to before. Behind a proxy that is the proxy's affair, but for addresses that stand in the URL itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NOT_GLOBAL: Final = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "fec0::/10", "64:ff9b:1::/48", "::/96"))
)
"""Of no public network, whatever `is_global` of a version of Python says; the last two hold IPv4 ones."""
_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)
"""Services of a cloud for its own machines: of Alibaba, Azure, Oracle and AWS."""


class AddressRefused(OSError):
    """The URL leads to an address that the orchestrator may not send this node to."""

    def __init__(self) -> None:
        # One text for all addresses: a connection that fails at several then ends with this error.
        super().__init__(
            "it leads to this machine or its private network, where the orchestrator is not"
            " (--allow-private-urls permits it)"
        )


class Place(Enum):
    """Where an address is, seen from this machine."""

    PUBLIC = auto()
    PRIVATE = auto()
    LINK_LOCAL = auto()
    LOOPBACK = auto()


_WITHIN: Final[Mapping[Place, frozenset[Place]]] = {
    Place.PUBLIC: frozenset({Place.PUBLIC}),
    Place.PRIVATE: frozenset({Place.PUBLIC, Place.PRIVATE}),
    Place.LOOPBACK: frozenset({Place.PUBLIC, Place.PRIVATE, Place.LOOPBACK}),
    Place.LINK_LOCAL: frozenset({Place.PUBLIC, Place.PRIVATE, Place.LINK_LOCAL}),
}
"""The table of the module."""


def place_of(address: str) -> Place:
    """Where an IP address is; one of IPv4 that stands in an IPv6 address counts as itself.

    Raises ValueError for a name.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = (
            ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        )
        ip = inner or ip
    if ip.is_loopback or ip.is_unspecified:  # a connection to 0.0.0.0 is one to this machine
        return Place.LOOPBACK
    if ip.is_link_local or ip.is_multicast or ip in _METADATA:  # a group of machines in this network
        return Place.LINK_LOCAL
    private = not ip.is_global or any(ip in network for network in _NOT_GLOBAL)
    return Place.PRIVATE if private else Place.PUBLIC


class Reach:
    """The rule for one orchestrator, shared by the client of its calls and that of its URLs."""

    def __init__(self, *, anywhere: bool = False) -> None:
        """`anywhere` permits every address."""
        self._anywhere = anywhere
        self._seen: set[Place] = set()

    def orchestrator_at(self, address: str | None) -> None:
        """Note where the orchestrator is about to be reached; None: by name, through a proxy.

        Each place narrows what its URLs may lead to, so that its name cannot resolve to a nearer one later.
        """
        self._seen.add(Place.PUBLIC if address is None else place_of(address))

    def check(self, address: str | None) -> None:
        """Raise AddressRefused for an address that one of the orchestrator's URLs must not lead to."""
        if self._anywhere or address is None:
            return
        place = place_of(address)
        if place is not Place.PUBLIC and not (
            self._seen and all(place in _WITHIN[seen] for seen in self._seen)
        ):
            raise AddressRefused
