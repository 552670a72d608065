"""Limits on the time, bytes and request rates that one client may cost the server."""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.http.server import ConnectionLimits
from iota.protocol.echo import MAX_ECHO
from iota.settings import OrchestratorSettings


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """Limits of the server. Those by address and connection apply before a signature is checked."""

    exchange_bytes: int = 4 << 20
    """Largest body of an exchange."""
    echo_bytes: int = MAX_ECHO + 1024
    """Largest body of an echo."""
    body_bytes: int = 64 << 10
    """Largest body of every other request."""
    body_s: float = 20.0
    """Time that a body may take to arrive."""
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    """Limits before a request is understood."""
    address_rate: float = 200.0
    """Requests a second of one address, over time; loopback is exempt."""
    address_burst: float = 1000.0
    """Requests of one address at once: many nodes may share one address."""
    hotkey_rate: float = 200.0
    """Requests a second of one hotkey, over time."""
    hotkey_burst: float = 400.0
    """Requests of one hotkey at once."""
    join_rate: float = 1 / 60
    """Joins a second of one hotkey, over time: the journal keeps each for ever."""
    join_burst: float = 30.0
    """Joins of one hotkey at once: a node may have to be started again a few times."""
    parts_rate: float = 4.0
    """Asks a second of one hotkey about objects that are stored in parts, over time: each is several requests
    to the store."""
    parts_burst: float = 256.0
    """Such asks of one hotkey at once: an object takes two."""
    bridge_rate: float = 1 / 60
    """Writes of shared variables a second of one member, over time: the journal keeps each for ever. The
    operator has `hotkey_rate`."""
    bridge_burst: float = 60.0
    """Such writes of one member at once."""
    bridge_streams: int = 4096
    """Open streams of shared variables of all clients together."""
    streams: int = 100
    """Open status streams of all clients together."""
    wait_s: float = 5.0
    """Longest wait of an exchange; requests for more are shortened to it."""
    silence_s: float = OrchestratorSettings.silence
    """A member without a request for this long is lost."""
    url_s: float = 3600.0
    """Lifetime of a presigned URL."""
    workers: int = OrchestratorSettings.max_workers
    """Most workers of one owner."""
    events: int = 256
    """Events in one answer."""

    def __post_init__(self) -> None:
        if self.silence_s <= 0 or self.wait_s <= 0:
            raise ValueError("silence and wait must be above 0 seconds")
