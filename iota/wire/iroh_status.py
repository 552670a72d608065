"""What an iroh endpoint knows of its network and its peers. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from iota.http import is_loopback
from iota.protocol.contacts import Relay
from iota.spec import Count, Frozen, Hex32, Small

_MOST: Final = 1024
"""Addresses and peers that an endpoint may tell of."""


class NatKind(StrEnum):
    """What stands between this endpoint and its peers, by the addresses at which they see it."""

    NONE = "none"
    """They see an address of this machine."""
    CONE = "cone"
    """All see the same one: others can be told it, and reach it if both sides dial at once."""
    SYMMETRIC = "symmetric"
    """Each sees another port: only a forwarded port or a relay helps where the peer has a NAT too."""
    UNKNOWN = "unknown"
    """Too few peers have said what they see."""


class PeerPath(Frozen):
    """How a connected peer is reached now."""

    key: str
    """Its network key."""
    path: Literal["direct", "relay", "none"]
    """"none": no path has been chosen yet."""
    address: str
    """`IP:PORT`, or the relay's URL."""
    rtt_ms: Small
    sees: str
    """Where it says that it sees this endpoint; empty if it has not said."""


class EndpointStatus(Frozen):
    """An endpoint, as its process tells of it each second: what is none of these forms is nonsense."""

    key: Hex32
    """Its public network key (hex)."""
    bound: Annotated[tuple[str, ...], Field(max_length=_MOST)]
    """UDP addresses that it listens at."""
    addresses: Annotated[tuple[str, ...], Field(max_length=_MOST)]
    """Where it may be reached: at this machine's interfaces, as the operator says, or as a relay sees it."""
    relay: Relay | None
    """The relay that it is connected to."""
    peers: Annotated[tuple[PeerPath, ...], Field(max_length=_MOST)]
    """Those it has a connection to."""


class IrohStatus(Frozen):
    """The link as a whole."""

    endpoint: EndpointStatus | None
    """None while the process does not run."""
    nat: NatKind
    restarts: Count
    """How often the process had to be started again."""
    last_end: str | None
    """Why, the last time."""


def seen_addresses(endpoint: EndpointStatus, own_hosts: Collection[str]) -> list[str]:
    """Addresses at which peers see this endpoint and that are believed, the most often seen first.

    One peer alone is believed where it names one of `own_hosts`, which are known to be this machine's. Else
    two must agree, so that no single one makes this miner send its peers' packets elsewhere.
    """
    counts = Counter(peer.sees for peer in endpoint.peers if peer.sees)
    return [
        address
        for address, count in counts.most_common()
        if count > 1 or address.rpartition(":")[0].strip("[]") in own_hosts
    ]


def nat_kind(endpoint: EndpointStatus, given: Collection[str]) -> NatKind:
    """What peers' words come to; `given` are addresses that the operator named, not this machine's own."""
    local = set(endpoint.addresses) - set(given)
    sees = [peer.sees for peer in endpoint.peers if peer.sees]
    foreign = [
        each for each in sees if each not in local and not is_loopback(each.rpartition(":")[0].strip("[]"))
    ]
    if not foreign:
        return NatKind.NONE if sees else NatKind.UNKNOWN
    ports: defaultdict[str, set[str]] = defaultdict(set)
    for address in foreign:
        host, _, port = address.rpartition(":")
        ports[host].add(port)
    if any(len(each) > 1 for each in ports.values()):
        return NatKind.SYMMETRIC
    return NatKind.CONE if len(foreign) > 1 else NatKind.UNKNOWN
