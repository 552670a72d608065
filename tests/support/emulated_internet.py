"""Hosts with network namespaces of their own, on lines that are slow, far and lossy, and behind NATs.

    async with EmulatedInternet() as internet:
        server = await internet.host("server")
        home = await internet.nat(Nat.PORT_RESTRICTED)
        miner = await internet.host("miner", behind=home, up=Shape(20 * PER_MBPS, delay_s=0.02))
        process = miner.popen(["curl", f"http://{server.address}:8000/"])

Programs in a host see `lo` and one device, and through it the other hosts: the kernel's TCP and UDP, whose
packets one router process moves (`tests/support/internet/`). All packets of a host share its line. Everything
ends with the context, and when this process is killed: the router and the programs end with it, and the
namespaces with these. The machine's own network is not touched. IPv4 alone. Linux, as root (`MISSING`).

Its cost, measured on 2 cores of a virtual machine, with the receiving kernel's work, for packets of 1500
bytes and 20 ms one way: one TCP connection takes 0.13 of a core at 100 Mbps, 0.12 at 160 Mbps (20 MB/s),
0.13 at 500 Mbps, and without shapes 0.3 at 0.6 GB/s. 20 MB/s of UDP take 0.38 of a core one by one, and 0.12
if ten are sent in a call (UDP_SEGMENT).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any, Self

from iota.system.processes import exit_with_parent, kill_group
from tests.support.internet import namespaces
from tests.support.internet.lines import PER_MBPS, Shape
from tests.support.internet.namespaces import MISSING
from tests.support.internet.nats import Nat
from tests.support.internet.packets import TCP, UDP
from tests.support.internet.router import shape_values
from tests.support.internet.routes import Cut

PUBLIC = IPv4Network("192.88.99.0/24")
"""Nobody's since RFC 7526, and public to programs that look, unlike ranges for tests and documentation."""
_PRIVATE = IPv4Network("192.168.0.0/16")
ANSWER_S = 30.0
ETHERNET = 1500
CONGESTION = "cubic"
"""TCP's congestion control, as most machines have it, whatever this one has."""


@dataclass
class NatBox:
    """A NAT or firewall; hosts behind one reach each other directly."""

    internet: EmulatedInternet
    kind: Nat
    address: str
    """Its public address."""
    number: int
    private: IPv4Network

    async def block_udp(self, blocked: bool = True) -> None:
        """Drop all UDP, both ways; or no longer."""
        await self.internet.order("block_udp", box=self.number, blocked=blocked)

    async def forward(self, host: Host, port: int, *, protocol: int = TCP, inside: int | None = None) -> None:
        """Open the public `port` for a host behind it (its port `inside`, the same by default)."""
        await self.internet.order(
            "forward",
            box=self.number,
            protocol=protocol,
            port=port,
            address=host.address,
            inside=port if inside is None else inside,
        )

    async def renumber(self) -> None:
        """Get another public address, as providers give to homes at times. All flows are lost."""
        address = self.internet.free_address()
        await self.internet.order("renumber", box=self.number, address=address)
        self.address = address

    async def forget(self) -> None:
        """Lose all flows, as a restarted router does."""
        await self.internet.order("forget", box=self.number)


@dataclass
class Host:
    """A network namespace with one address."""

    internet: EmulatedInternet
    name: str
    address: str
    """Its own; private behind a NAT."""
    box: NatBox
    namespace: str
    """A path for `setns`."""
    up: Shape
    down: Shape
    _programs: list[subprocess.Popen[Any]] = field(default_factory=list)

    @property
    def public_address(self) -> str:
        """The address by which others may reach it, if they may."""
        return self.box.address

    def command(self, argv: Sequence[str]) -> list[str]:
        """A command line that runs `argv` in this host."""
        return ["nsenter", f"--net={self.namespace}", "--", *argv]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in this host. It is killed at the internet's end, and with this process.

        From the main thread. `options` as `subprocess.Popen` has them.
        """
        parent = os.getpid()
        program = subprocess.Popen(
            self.command(argv),
            start_new_session=True,
            preexec_fn=lambda: exit_with_parent(parent),
            **options,
        )
        self._programs.append(program)
        return program

    async def run(self, argv: Sequence[str], timeout_s: float = 60.0) -> str:
        """What a program in this host prints. Raises CalledProcessError, TimeoutExpired."""
        program = self.popen(argv, stdout=subprocess.PIPE, text=True)
        try:
            out, _ = await asyncio.to_thread(program.communicate, timeout=timeout_s)
        finally:
            if program.poll() is None:
                kill_group(program.pid)
        if program.returncode:
            raise subprocess.CalledProcessError(program.returncode, list(argv), out)
        return str(out)

    def inside(self) -> AbstractContextManager[None]:
        """This thread in the host, see `namespaces.entered`."""
        return namespaces.entered(self.namespace)

    async def shape(self, up: Shape, down: Shape) -> None:
        """Other lines, for what is sent from now on."""
        await self.internet.order("shape", name=self.name, up=shape_values(up), down=shape_values(down))
        self.up, self.down = up, down

    async def packets(self, mtu: int) -> None:
        """Send packets of at most so many bytes."""
        await self.run(["ip", "link", "set", namespaces.DEVICE, "mtu", str(mtu)])

    async def cut(self, how: Cut = Cut.SILENT) -> None:
        """Cut it off."""
        await self.internet.order("cut", name=self.name, how=how.value)

    async def restore(self) -> None:
        """Connect it again."""
        await self.internet.order("cut", name=self.name, how=None)

    async def block_udp(self, blocked: bool = True) -> None:
        """See `NatBox.block_udp`."""
        await self.box.block_udp(blocked)

    def kill_programs(self) -> None:
        """End the programs that still run, with their groups."""
        for program in self._programs:
            if program.poll() is None:
                kill_group(program.pid)
                program.wait()
        self._programs.clear()


class EmulatedInternet:
    """`seed` of losses, jitter and ports; `congestion` control of TCP; `mtu` of hosts, by default."""

    def __init__(self, *, seed: int = 0, mtu: int = ETHERNET, congestion: str = CONGESTION) -> None:
        self._seed, self._mtu, self._congestion = seed, mtu, congestion
        self._public = PUBLIC.hosts()
        self._private = _PRIVATE.subnets(new_prefix=24)
        self._asking = asyncio.Lock()
        self.hosts: dict[str, Host] = {}

    async def __aenter__(self) -> Self:
        if MISSING is not None:
            raise RuntimeError(f"an emulated internet {MISSING}")
        parent = os.getpid()
        self._router = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.internet.router", str(parent), str(self._seed)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the programs first
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for host in self.hosts.values():
            host.kill_programs()
        assert self._router.stdin is not None
        self._router.stdin.close()
        try:
            await asyncio.wait_for(self._router.wait(), ANSWER_S)
        except TimeoutError:
            self._router.kill()
            await self._router.wait()

    def free_address(self) -> str:
        """A public address that nobody has."""
        return str(next(self._public))

    async def nat(self, kind: Nat, *, keeps_ports: bool = True) -> NatBox:
        """A box for hosts to be behind. A FIREWALL or none has room for one host.

        `keeps_ports`: public ports of cones are the private ones where these are free, as with most homes.
        """
        address = self.free_address()
        number = await self.order("box", kind=kind.value, address=address, keeps_ports=keeps_ports)
        return NatBox(self, kind, address, number, next(self._private))

    async def host(
        self,
        name: str,
        *,
        behind: NatBox | Nat = Nat.NONE,
        up: Shape | None = None,
        down: Shape | None = None,
        mtu: int | None = None,
    ) -> Host:
        """A host, `behind` a box that is there or a new one of its own. Without shapes it is fast."""
        box = behind if isinstance(behind, NatBox) else await self.nat(behind)
        address = box.address
        if box.kind not in (Nat.NONE, Nat.FIREWALL):
            neighbours = sum(host.box is box for host in self.hosts.values())
            address = str(box.private[2 + neighbours])
        up, down = up or Shape(), down or Shape()
        namespace = await self.order(
            "host",
            name=name,
            address=address,
            box=box.number,
            up=shape_values(up),
            down=shape_values(down),
            mtu=mtu or self._mtu,
            congestion=self._congestion,
        )
        host = self.hosts[name] = Host(self, name, address, box, namespace, up, down)
        return host

    async def counts(self) -> dict[str, Any]:
        """`hosts`: by name what its line carried and what was dropped why; `cpu_s` of the router."""
        found: dict[str, Any] = await self.order("counts")
        return found

    async def order(self, do: str, **given: Any) -> Any:
        """One order to the router, and its answer. Raises RuntimeError where it fails."""
        assert self._router.stdin is not None
        assert self._router.stdout is not None
        async with self._asking:
            self._router.stdin.write(json.dumps({"do": do, **given}).encode() + b"\n")
            line = await asyncio.wait_for(self._router.stdout.readline(), ANSWER_S)
        answer = json.loads(line or b'{"failed": "the router has ended"}')
        if "failed" in answer:
            raise RuntimeError(f"{do}: {answer['failed']}")
        return answer["done"]


__all__ = ["MISSING", "PER_MBPS", "TCP", "UDP", "Cut", "EmulatedInternet", "Host", "Nat", "NatBox", "Shape"]
