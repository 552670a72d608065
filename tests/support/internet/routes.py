"""Packets between hosts: over one's line, through its box and the other's, over the other's line. Pure.

Between the boxes is a backbone that never fills.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.internet.lines import Line, Shape
from tests.support.internet.nats import Box
from tests.support.internet.packets import Packet


class Cut(enum.Enum):
    """What becomes of the packets of a host without a connection."""

    SILENT = "silent"
    """They vanish."""
    RESET = "reset"
    """TCP is answered with RST, to both ends; the rest vanishes."""


@dataclass
class Site:
    """A host, as packets see it."""

    name: str
    address: int
    """Its own: private behind a box that translates."""
    box: Box
    up: Line
    down: Line
    cut: Cut | None = None
    counts: Counter[str] = field(default_factory=Counter)
    """`bytes_up`, `bytes_down` (on the line), and packets that were dropped, by reason."""


@dataclass(frozen=True)
class Delivery:
    """A packet that has arrived, to be written to its host's device."""

    site: Site
    packet: Packet


class Routes:
    """All sites, and the packets on their way. Times are seconds of one monotonic clock."""

    def __init__(self, draws: random.Random) -> None:
        self.draws = draws
        self._public: dict[int, Box] = {}
        self._inside: dict[tuple[Box | None, int], Site] = {}
        self._way: list[tuple[float, int, Site | None, Site, Packet]] = []
        """(when, a number, the site that it left or None at its last line's end, the site, packet)"""
        self._numbers = itertools.count()

    def add(self, name: str, address: int, box: Box, up: Shape, down: Shape) -> Site:
        """A site behind `box`, which several may share. Raises ValueError for an address that is taken."""
        if self._public.setdefault(box.address, box) is not box or self._key(box, address) in self._inside:
            raise ValueError(f"{name}: its address is another's")
        site = Site(name, address, box, Line(up, self.draws), Line(down, self.draws))
        self._inside[self._key(box, address)] = site
        return site

    def renumber(self, box: Box, address: int) -> None:
        """Give a box that translates another public address; its flows are lost.

        Raises ValueError where the address is taken, or its hosts have it themselves.
        """
        if address in self._public or not box.translates:
            raise ValueError("an address that is free, of a box that translates")
        self._public.pop(box.address, None)
        self._public[address] = box
        box.address = address
        box.forget()

    @property
    def next_at(self) -> float | None:
        """When `due` has something to do next."""
        return self._way[0][0] if self._way else None

    def send(self, now: float, site: Site, frame: bytes) -> list[Delivery]:
        """Take a packet from a host's device; what is delivered at once."""
        try:
            packet = Packet(frame)
        except ValueError:
            site.counts["not routed"] += 1
            return []
        if site.cut is not None:
            return self._cut_off(now, site, packet)
        arrival = site.up.enter(now, packet.size)
        if arrival is None:
            site.counts["queue full, up"] += packet.segments
            return []
        site.counts["bytes_up"] += packet.size
        return self._on_its_way(now, arrival, site, site, packet, site.up)

    def due(self, now: float) -> Iterator[Delivery]:
        """What has arrived by `now`."""
        while self._way and self._way[0][0] <= now:
            at, _, left, site, packet = heapq.heappop(self._way)
            if left is not None:
                yield from self._cross(at, left, packet)
            elif site.cut is not None:
                yield from self._cut_off(at, site, packet)
            else:
                yield Delivery(site, packet)

    def _on_its_way(
        self, now: float, arrival: float, left: Site | None, site: Site, packet: Packet, line: Line
    ) -> list[Delivery]:
        """`packet` without what `line` loses, at the line's end at `arrival`."""
        kept = line.kept(packet.segments)
        if lost := packet.segments - sum(end - first for first, end in kept):
            site.counts["lost"] += lost
        deliveries: list[Delivery] = []
        for piece in packet.pieces(kept):
            if arrival > now:
                heapq.heappush(self._way, (arrival, next(self._numbers), left, site, piece))
            elif left is None:
                deliveries.append(Delivery(site, piece))
            else:
                deliveries += self._cross(now, left, piece)
        return deliveries

    def _cross(self, now: float, left: Site, packet: Packet) -> list[Delivery]:
        """From the end of one host's line to the begin of the other's."""
        site = self._addressed(now, left, packet)
        if site is None:
            return []
        if site.cut is not None:
            return self._cut_off(now, site, packet)
        if site.box is left.box:  # neighbours, whose packets take no line
            return [Delivery(site, packet)]
        arrival = site.down.enter(now, packet.size)
        if arrival is None:
            site.counts["queue full, down"] += packet.segments
            return []
        site.counts["bytes_down"] += packet.size
        return self._on_its_way(now, arrival, None, site, packet, site.down)

    def _addressed(self, now: float, left: Site, packet: Packet) -> Site | None:
        """Whom a packet is for, if the boxes on its way let it pass; they rewrite it."""
        box, (protocol, target) = left.box, (packet.protocol, packet.target)
        if box.translates and (neighbour := self._inside.get((box, target.address))) is not None:
            return neighbour
        source = box.outward(now, protocol, packet.source, target)
        there = self._public.get(target.address)
        if source is None or there is None:
            left.counts["not let out" if source is None else "no such address"] += 1
            return None
        inside = there.inward(now, protocol, source, target)
        site = None if inside is None else self._inside.get(self._key(there, inside.address))
        if inside is None or site is None:
            left.counts["not let in"] += 1
            return None
        packet.rewrite(source, inside)
        return site

    def _cut_off(self, now: float, site: Site, packet: Packet) -> list[Delivery]:
        """A packet from or to a site without a connection, and the answer where one is due."""
        site.counts["cut"] += packet.segments
        answer = packet.reset() if site.cut is Cut.RESET else None
        if answer is None:
            return []
        if packet.source.address == site.address:
            return [Delivery(site, answer)]
        other = self._addressed(now, site, answer)
        return [] if other is None else [Delivery(other, answer)]

    def _key(self, box: Box, address: int) -> tuple[Box | None, int]:
        return (box if box.translates else None, address)
