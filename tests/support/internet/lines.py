"""When a packet that enters a line leaves it at the other end, if it does. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

PER_MBPS = 1e6 / 8
"""Bytes a second in a megabit a second."""


@dataclass(frozen=True)
class Shape:
    """One direction of a line. The default passes everything at once."""

    rate: float | None = None
    """Bytes a second, headers of IP and above included; None for no limit."""
    delay_s: float = 0.0
    """One way."""
    jitter_s: float = 0.0
    """Up to so much more delay, drawn for each packet. Packets stay in order."""
    loss: float = 0.0
    """Share of packets, as the network would see them, that vanish after they took their time on the line."""
    reorder: float = 0.0
    """Share of packets that the next ones overtake: they take `reorder_s` longer."""
    reorder_s: float = 0.01
    queue_s: float = 0.2
    """A packet is dropped if those before it would keep the line busy for longer than this."""

    def __post_init__(self) -> None:
        if self.rate is not None and self.rate <= 0:
            raise ValueError("rate: more than 0 bytes a second, or None")
        if not (0 <= self.loss <= 1 and 0 <= self.reorder <= 1):
            raise ValueError("loss and reorder are shares from 0 to 1")
        if min(self.delay_s, self.jitter_s, self.reorder_s, self.queue_s) < 0:
            raise ValueError("times are not negative")

    def slower(self, factor: float) -> Shape:
        """The same line where all takes `factor` times as long."""
        return Shape(
            None if self.rate is None else self.rate / factor,
            self.delay_s * factor,
            self.jitter_s * factor,
            self.loss,
            self.reorder,
            self.reorder_s * factor,
            self.queue_s * factor,
        )


class Line:
    """One direction of a line, which all packets of a host share in the order in which they enter it."""

    def __init__(self, shape: Shape, draws: random.Random) -> None:
        self._draws = draws
        self._free_at = 0.0
        self._last_arrival = 0.0
        self.shape = shape

    @property
    def shape(self) -> Shape:
        """What packets that enter from now on meet; those on the way stay as they are."""
        return self._shape

    @shape.setter
    def shape(self, shape: Shape) -> None:
        self._shape = shape
        self._until_loss = self._next_loss()

    def enter(self, now: float, size: int) -> float | None:
        """When `size` bytes that enter at `now` arrive; None if the line's queue is full. Seconds."""
        shape = self._shape
        if shape.rate is None:
            sent = now
        else:
            start = max(self._free_at, now)
            if start - now > shape.queue_s:
                return None
            self._free_at = sent = start + size / shape.rate
        arrival = sent + shape.delay_s
        if shape.jitter_s:
            arrival += self._draws.random() * shape.jitter_s
        arrival = self._last_arrival = max(arrival, self._last_arrival)
        if shape.reorder and self._draws.random() < shape.reorder:
            arrival += shape.reorder_s
        return arrival

    def kept(self, packets: int) -> list[tuple[int, int]]:
        """Which of so many packets in a row are not lost, as ranges `(first, end)`."""
        if self._until_loss >= packets:
            self._until_loss -= packets
            return [(0, packets)]
        kept, first = [], 0
        while first + self._until_loss < packets:
            lost = first + int(self._until_loss)
            if lost > first:
                kept.append((first, lost))
            first, self._until_loss = lost + 1, self._next_loss()
        if first < packets:
            kept.append((first, packets))
            self._until_loss -= packets - first
        return kept

    def _next_loss(self) -> float:
        """How many packets pass before the next that is lost, of a geometric distribution."""
        if self._shape.loss <= 0:
            return math.inf
        if self._shape.loss >= 1:
            return 0
        return int(math.log(1 - self._draws.random()) / math.log1p(-self._shape.loss))
