"""What a miner finds of its line at its start, and what that means for its frames."""

from __future__ import annotations

import ipaddress
import math
import time
from dataclasses import dataclass
from typing import Final

from iota.client.orchestrator import OrchestratorClient
from iota.settings.urls import split_host_port
from iota.wire.iroh_status import NatKind

_SAMPLE: Final = 1 << 19
"""Bytes that go up, and come down, to be timed: 0.2 s at 20 Mbps."""


@dataclass(frozen=True)
class Line:
    """A miner's line to the orchestrator, as echoes show it."""

    round_trip_s: float
    up: float
    """Bytes a second; infinite where the sample took no longer than an empty echo."""
    down: float
    seen: str
    """The IP address that the requests came from."""


async def measure_line(client: OrchestratorClient, seen: str) -> Line:
    """Time four echoes of a node that comes from `seen`. Raises what `OrchestratorClient.echo` raises."""
    round_trip = min([await _timed(client, 0, 0) for _ in range(2)])
    up = _rate(round_trip, await _timed(client, _SAMPLE, 0))
    down = _rate(round_trip, await _timed(client, 0, _SAMPLE))
    return Line(round_trip, up, down, seen)


async def _timed(client: OrchestratorClient, up: int, down: int) -> float:
    began = time.perf_counter()
    await client.echo(up, down)
    return time.perf_counter() - began


def _rate(round_trip: float, passed: float) -> float:
    return _SAMPLE / (passed - round_trip) if passed > round_trip else math.inf


@dataclass(frozen=True)
class Reached:
    """The ways by which peers may reach this miner."""

    direct: tuple[str, ...]
    """Addresses of its TCP server; empty without one."""
    public: str | None
    """The operator's word on where it is reached from outside."""
    udp_port: int | None
    """Where its iroh endpoint listens; None without one."""
    relay: str | None
    """Why there is no iroh endpoint though one was wanted."""


def line_found(line: Line) -> str:
    """The line in words."""
    up, down = _rate_found(line.up), _rate_found(line.down)
    return f"line to the orchestrator: {1e3 * line.round_trip_s:.0f} ms, {up} up, {down} down"


def _rate_found(rate: float) -> str:
    return f"{8 * rate / 1e6:,.0f} Mbps" if math.isfinite(rate) else "too fast to measure"


def meaning(line: Line, reached: Reached) -> list[str]:
    """What the miner's place means for its frames, a sentence each, and what its operator can do."""
    own = {split_host_port(address)[0] for address in reached.direct}
    said = []
    if reached.public is not None:
        said.append(f"peers reach this miner at {reached.public}, if that is forwarded to it")
    elif line.seen in own or _is_near(line.seen):
        said.append("peers reach this miner at its own address, unless a firewall is in the way")
    else:
        ports = [f"TCP {split_host_port(reached.direct[0])[1]}"] if reached.direct else []
        ports += [f"UDP {reached.udp_port}"] if reached.udp_port is not None else []
        said.append(_behind(line.seen, reached, " and ".join(ports)))
    return said


def nat_meaning(kind: NatKind, port: int | None) -> str | None:
    """What peers have found of the NAT that this miner is behind; None where there is nothing to say."""
    match kind:
        case NatKind.SYMMETRIC:
            return (
                "this miner is behind a symmetric NAT: peers behind other NATs cannot reach it over iroh, and"
                f" frames go by TCP, a relay or the store. Forward UDP port {port} to avoid it"
            )
        case NatKind.CONE:
            return "this miner is behind a NAT that iroh passes"
        case _:
            return None


def _behind(seen: str, reached: Reached, ports: str) -> str:
    if reached.udp_port is None:
        way = "peers cannot reach it, and what they send it goes by the object store"
    elif reached.relay is None:
        way = "peers reach it over iroh where both routers let UDP through, else by the object store"
    else:
        way = f"peers reach it over iroh, or by the relay {reached.relay}"
    return (
        f"this miner is behind a router (it is seen as {seen}): {way}. Fastest is to forward {ports} to this"
        " machine, and to give --listen with that port and --public-address"
    )


def _is_near(address: str) -> bool:
    """Whether the orchestrator sees an address of this machine's own network: no router is between them."""
    try:
        return not ipaddress.ip_address(address).is_global
    except ValueError:
        return False
