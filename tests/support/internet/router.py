"""The process that moves the packets of an emulated internet: `python -m tests.support.internet.router`.

Orders are JSON lines on stdin (`_Router.order`), each answered by a line on stdout. It ends with its stdin,
and the namespaces with it, unless programs still run in them.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import sys
import time
from dataclasses import asdict
from ipaddress import IPv4Address
from typing import Any

from iota.system.processes import exit_with_parent, name_process
from tests.support.internet import namespaces
from tests.support.internet.lines import Shape
from tests.support.internet.nats import Box, Nat
from tests.support.internet.packets import Endpoint
from tests.support.internet.routes import Cut, Delivery, Routes, Site

_LARGEST = 1 << 17
_AT_ONCE = 64
"""Packets of one host that are taken before the next one's turn."""
_TICK_S = 0.001
"""A busy router looks so often. A packet arrives up to half of it early or late, on average neither."""


class _Router:
    def __init__(self, seed: int) -> None:
        self.routes = Routes(random.Random(seed))
        self.boxes: list[Box] = []
        self.sites: dict[str, Site] = {}
        self.devices: dict[int, Site] = {}
        self.device_of: dict[str, int] = {}
        self.epoll = select.epoll()
        self._orders = b""
        self._looked_at, self._found = 0.0, False

    def run(self) -> None:
        """Until stdin ends."""
        os.set_blocking(0, False)
        self.epoll.register(0, select.EPOLLIN)
        while True:
            self._wait()
            self._found = False
            now = self._looked_at = time.monotonic()
            for number, _ in self.epoll.poll(0):
                if number != 0:
                    self._take(number, now)
                elif not self._hear():
                    return
            for delivery in self.routes.due(now + _TICK_S / 2):
                self._deliver(delivery)

    def _wait(self) -> None:
        """Until something is to be done; where the last look found something, a tick at least.

        Waking costs more than moving a packet.
        """
        if self._found:
            time.sleep(max(0.0, self._looked_at + _TICK_S - time.monotonic()))
            return
        next_at = self.routes.next_at
        wait = None if next_at is None else max(0.0, next_at - time.monotonic())
        # select waits microseconds, epoll whole milliseconds
        select.select([self.epoll.fileno()], [], [], wait)

    def _take(self, device: int, now: float) -> None:
        self._found = True
        site = self.devices[device]
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(device, _LARGEST)
            except BlockingIOError:
                return
            for delivery in self.routes.send(now, site, frame):
                self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        self._found = True
        site = delivery.site
        try:
            os.writev(self.device_of[site.name], delivery.packet.parts())
        except OSError:  # the device is down, or the kernel refuses the packet: a network loses it
            site.counts["not taken"] += delivery.packet.segments

    def _hear(self) -> bool:
        """Follow the orders that have come; False at the end of stdin."""
        if not (chunk := os.read(0, 1 << 16)):
            return False
        *lines, self._orders = (self._orders + chunk).split(b"\n")
        for line in lines:
            try:
                answer = {"done": self.order(**json.loads(line))}
            except Exception as error:  # noqa: BLE001 - the one who ordered hears why
                answer = {"failed": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        return True

    def order(self, do: str, **given: Any) -> Any:
        """Follow one order: the name of a method below, and its arguments."""
        return getattr(self, f"do_{do}")(**given)

    def do_box(self, kind: str, address: str, keeps_ports: bool) -> int:
        """A new box; its number."""
        box = Box(Nat(kind), int(IPv4Address(address)), self.routes.draws, keeps_ports=keeps_ports)
        self.boxes.append(box)
        return len(self.boxes) - 1

    def do_host(
        self,
        name: str,
        address: str,
        box: int,
        up: dict[str, Any],
        down: dict[str, Any],
        mtu: int,
        congestion: str,
    ) -> str:
        """A new host; the path of its namespace."""
        own = IPv4Address(address)
        site = self.routes.add(name, int(own), self.boxes[box], Shape(**up), Shape(**down))
        namespace, device = namespaces.make(own, mtu, congestion)
        self.sites[name], self.devices[device], self.device_of[name] = site, site, device
        self.epoll.register(device, select.EPOLLIN)
        return f"/proc/{os.getpid()}/fd/{namespace}"

    def do_shape(self, name: str, up: dict[str, Any], down: dict[str, Any]) -> None:
        """Other lines from now on."""
        self.sites[name].up.shape, self.sites[name].down.shape = Shape(**up), Shape(**down)

    def do_cut(self, name: str, how: str | None) -> None:
        """Cut a host off, or connect it again."""
        self.sites[name].cut = None if how is None else Cut(how)

    def do_block_udp(self, box: int, blocked: bool) -> None:
        """Let UDP through a box, or not."""
        self.boxes[box].udp_blocked = blocked

    def do_forward(self, box: int, protocol: int, port: int, address: str, inside: int) -> None:
        """Open a public port of a box."""
        self.boxes[box].forward(protocol, port, Endpoint(int(IPv4Address(address)), inside))

    def do_renumber(self, box: int, address: str) -> None:
        """Another public address for a box."""
        self.routes.renumber(self.boxes[box], int(IPv4Address(address)))

    def do_forget(self, box: int) -> None:
        """Lose a box's flows."""
        self.boxes[box].forget()

    def do_counts(self) -> dict[str, Any]:
        """By host what `Site.counts` has, and the CPU seconds of this process."""
        times = os.times()
        hosts = {name: dict(site.counts) for name, site in self.sites.items()}
        return {"hosts": hosts, "cpu_s": times.user + times.system}


def shape_values(shape: Shape) -> dict[str, Any]:
    """A shape as an order has it."""
    return asdict(shape)


def main() -> None:
    """Arguments: the parent's process id, and a seed for what is drawn."""
    exit_with_parent(int(sys.argv[1]))
    name_process("internet-router")
    # it has little to do, and what it does late makes all lines longer
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    gc.disable()  # packets are in no cycles, and a collection would delay them
    _Router(int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
