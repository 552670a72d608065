"""What an iroh endpoint knows of its network and its peers."""

from __future__ import annotations

from typing import Literal

from iota.spec import Frozen


class PeerPath(Frozen):
    """How a connected peer is reached now."""

    key: str
    """Its network key."""
    path: Literal["direct", "relay", "none"]
    """"none": no path has been chosen yet."""
    address: str
    """`IP:PORT`, or the relay's URL."""
    rtt_ms: int


class EndpointStatus(Frozen):
    """An endpoint, as its process tells of it each second."""

    key: str
    """Its public network key (hex)."""
    bound: tuple[str, ...]
    """UDP addresses that it listens at."""
    addresses: tuple[str, ...]
    """Where it may be reached: at this machine's interfaces, as the operator says, or as a relay sees it."""
    relay: str | None
    """The relay that it is connected to."""
    peers: tuple[PeerPath, ...]
    """Those it has a connection to."""


class IrohStatus(Frozen):
    """The link as a whole."""

    endpoint: EndpointStatus | None
    """None while the process does not run."""
    restarts: int
    """How often the process had to be started again."""
    last_end: str | None
    """Why, the last time."""
