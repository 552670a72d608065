"""An open iroh connection, and the address at which a peer is dialled."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import iroh

from iota.wire.iroh_options import MAX_SENT_STREAMS


@dataclass(frozen=True)
class PeerAddress:
    """Where a peer is dialled."""

    key: str
    relay: str | None
    addresses: tuple[str, ...]

    def form(self) -> iroh.EndpointAddr:
        """Itself for the library. Raises IrohError for what is malformed."""
        return iroh.EndpointAddr(
            iroh.EndpointId.from_bytes(bytes.fromhex(self.key)), self.relay, list(self.addresses)
        )


@dataclass
class Live:
    """An open connection."""

    connection: iroh.Connection
    key: str
    dialled: bool
    since: float
    used_at: float
    heard_at: float
    heard: int = 0
    """Datagrams received until `heard_at`."""
    coming: int = 0
    """Frames under way from the peer."""
    refused: int = 0
    """Streams that were over the bound."""
    sending: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_SENT_STREAMS))
    """Taken by frames under way to the peer."""
    going: int = 0
    sees: str = ""
    """Where the peer says that it sees this endpoint: `IP:PORT`."""

    @property
    def open(self) -> bool:
        """Whether the library has not seen its end."""
        return self.connection.close_reason() is None

    @property
    def busy(self) -> bool:
        """Whether frames are under way in it."""
        return bool(self.coming or self.going)

    def close(self, why: str) -> None:
        """Close it; the peer is told why."""
        self.connection.close(1, why.encode())

    def hear(self, now: float) -> None:
        """Note whether anything came since the last call."""
        heard = self.connection.stats().udp_rx_datagrams
        if heard != self.heard:
            self.heard, self.heard_at = heard, now


def path_of(connection: iroh.Connection) -> dict[str, Any]:
    """The path that a connection uses now: kind (direct, relay or none), address, round trip."""
    for path in connection.paths():
        if path.is_selected:
            kind = "relay" if path.is_relay else "direct"
            return {"path": kind, "address": path.remote_addr, "rtt_ms": path.rtt_ms}
    return {"path": "none", "address": "", "rtt_ms": 0}
