"""What home routers and firewalls do to packets: translation and filters, by flow. Pure."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field

from tests.support.internet.packets import UDP, Endpoint

FIRST_PORT, LAST_PORT = 20_000, 59_999
UDP_IDLE_S = 120.0
"""Silence after which a flow of UDP is forgotten (RFC 4787, REQ-5, asks for two minutes at least)."""


class Nat(enum.Enum):
    """Kinds of boxes before a host, in the usual words (RFC 3489)."""

    NONE = "none"
    """A public address, and nothing in the way."""
    FIREWALL = "firewall"
    """A public address; what comes in must answer what went out."""
    FULL_CONE = "full cone"
    """One public port for each private one; anyone may send to it."""
    PORT_RESTRICTED = "port-restricted cone"
    """The same, for those alone that the host has sent to."""
    SYMMETRIC = "symmetric"
    """Another public port for each remote endpoint, for that one alone."""


@dataclass
class _Flow:
    inside: Endpoint
    outside: Endpoint
    used_at: float
    remotes: dict[Endpoint, float] = field(default_factory=dict)
    """When each was last sent to."""


class Box:
    """A NAT or firewall with the public `address`."""

    def __init__(self, kind: Nat, address: int, draws: random.Random, *, keeps_ports: bool = True) -> None:
        """`keeps_ports`: a cone's public port is the private one where that is free, as Linux does it."""
        self.kind, self.address, self._keeps_ports = kind, address, keeps_ports
        self.udp_blocked = False
        self._draws = draws
        self._out: dict[tuple[int, Endpoint, Endpoint | None], _Flow] = {}
        self._in: dict[tuple[int, int], _Flow] = {}
        self._forwarded: dict[tuple[int, int], Endpoint] = {}

    @property
    def translates(self) -> bool:
        """Whether hosts behind it have private addresses."""
        return self.kind not in (Nat.NONE, Nat.FIREWALL)

    def forward(self, protocol: int, port: int, to: Endpoint) -> None:
        """Send what comes to a public port to `to`, whoever sends it: a port that its owner opened."""
        self._forwarded[protocol, port] = to

    def outward(self, now: float, protocol: int, source: Endpoint, target: Endpoint) -> Endpoint | None:
        """The source that others see of a packet that leaves; None if it may not."""
        if protocol == UDP and self.udp_blocked:
            return None
        if self.kind is Nat.NONE:
            return source
        for (of, port), inside in self._forwarded.items():
            if of == protocol and inside == source:
                return Endpoint(self.address, port)
        key = (protocol, source, target if self.kind is Nat.SYMMETRIC else None)
        flow = self._out.get(key)
        if flow is None or self._forgotten(protocol, flow, now):
            flow = self._open(key, now)
        flow.used_at = flow.remotes[target] = now
        return flow.outside

    def inward(self, now: float, protocol: int, source: Endpoint, target: Endpoint) -> Endpoint | None:
        """Where a packet to this box's address goes inside; None if it is dropped."""
        if protocol == UDP and self.udp_blocked:
            return None
        if self.kind is Nat.NONE:
            return target
        if (forwarded := self._forwarded.get((protocol, target.port))) is not None:
            return forwarded
        flow = self._in.get((protocol, target.port))
        if flow is None or self._forgotten(protocol, flow, now):
            return None
        if self.kind is not Nat.FULL_CONE:
            sent_at = flow.remotes.get(source)
            if sent_at is None or (protocol == UDP and now - sent_at > UDP_IDLE_S):
                return None
            flow.remotes[source] = now
        flow.used_at = now
        return flow.inside

    def forget(self) -> None:
        """Lose all flows, as a box that starts anew does."""
        self._out.clear()
        self._in.clear()

    def _open(self, key: tuple[int, Endpoint, Endpoint | None], now: float) -> _Flow:
        protocol, inside, _ = key
        if (old := self._out.get(key)) is not None:
            del self._in[protocol, old.outside.port]
        port = inside.port
        if self.translates and (self.kind is Nat.SYMMETRIC or not self._keeps_ports):
            port = self._draws.randint(FIRST_PORT, LAST_PORT)
        while (protocol, port) in self._in:
            port = self._draws.randint(FIRST_PORT, LAST_PORT)
        flow = self._out[key] = _Flow(inside, Endpoint(self.address, port), now)
        self._in[protocol, port] = flow
        return flow

    def _forgotten(self, protocol: int, flow: _Flow, now: float) -> bool:
        return protocol == UDP and now - flow.used_at > UDP_IDLE_S
