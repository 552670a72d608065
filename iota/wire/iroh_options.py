"""What a miner tells its iroh process at its start, and the bounds that both keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ALPN: Final = b"iota/frame/1"
"""The protocol that is spoken in a connection, and the version of its form."""
MAX_SENT_STREAMS: Final = 6
"""Frames under way to one peer in one connection."""
MAX_STREAMS: Final = 8
"""Frames under way from one peer in one connection: the sender may know of an end before the receiver."""
IDLE_BURST: Final = 64
IDLE_RATE: Final = 8.0
"""Streams of one peer that bring no whole frame, at once and then a second: each takes the miner as long as a
check of a signature. A sender that is refused eight times leaves the link for another."""
MAX_NAMED: Final = 16
"""Peers that are named in the log, once each, for one case."""
MAX_CONNECTIONS: Final = 128
"""Connections of one endpoint. Each may hold 10 MB that are not yet read: `MAX_STREAMS` QUIC windows."""
MAX_OF_ONE_KEY: Final = 3
"""Connections that one peer has opened: one is left from before it restarted, and one from both dialling."""
MAX_HANDSHAKES: Final = 32
"""Connections whose peer is not yet known."""
MAX_HANDSHAKES_OF_ONE: Final = 8
"""Those of one IP address (of IPv6 one /64 network): who begins and never ends them takes no one else's."""
MAX_ANSWER: Final = 512
"""Bytes of an answer to a frame."""


@dataclass(frozen=True)
class IrohOptions:
    """How an endpoint listens, and how long it waits. Addresses are `IP:PORT`, IPv6 in brackets."""

    bind: tuple[str, ...] = ()
    """UDP addresses to listen at; none: a free port of all interfaces."""
    relays: tuple[str, ...] = ()
    """URLs of the operator's own relay servers; none: no relays."""
    public: tuple[str, ...] = ()
    """Further addresses at which this endpoint is reached, such as a router's."""
    dial_s: float = 10.0
    """One try to reach a peer. Punching a hole takes several packets, sent at 1, 3 and 7 s."""
    head_s: float = 10.0
    """From a stream's start until a frame's head is there."""
    grace_s: float = 20.0
    least_rate: float = 16384.0
    """A frame of n bytes has `grace_s + n / least_rate` seconds once it is admitted: 2.2 MB 154 s."""
    idle_s: float = 60.0
    """After this long without a frame, a connection that nobody prepared is closed by who dialled it."""
    silent_s: float = 12.0
    """A connection in which nothing came for so long is dead: QUIC's signs of life come every 5 s."""
    hang_s: float = 6.0
    """A process that shows no sign of life for so long hangs."""
    start_s: float = 30.0
    """Until a started process is ready."""
    block_copies: bool = True
    """False: the package's buffers as shipped (`iota.wire.iroh_buffers`), for benchmarks."""
