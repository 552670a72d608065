"""Links in virtual time: each goes through phases in which it is good, slow, dead, silent or lying."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from math import inf

_ROUNDING = 1e-3
"""Seconds or bytes: what is less is none, so that time goes on by more than a float's precision."""


class Behaviour(StrEnum):
    """What a link does in a phase."""

    GOOD = "good"
    """Frames arrive at the phase's rate, shared by the transfers under way."""
    RESETS = "resets"
    """Whatever is under way or begins fails."""
    STALLS = "stalls"
    """Nothing moves; what is under way goes on after the phase."""
    SILENT = "silent"
    """Frames arrive, and no acknowledgement ever does."""
    LATER = "later"
    """The peer's door refuses: it has no room now."""


@dataclass(frozen=True)
class Phase:
    """A link's behaviour until a time (seconds)."""

    until: float
    behaviour: Behaviour = Behaviour.GOOD
    latency_s: float = 0.02
    bytes_per_s: float = 50e6


@dataclass(eq=False)
class Flight:
    """A transfer on a virtual link."""

    frame: int
    size: int
    on_end: Callable[[Behaviour], None]
    """Called with what the link did to it: GOOD is an acknowledgement."""
    latency_left: float
    bytes_left: float
    unheard: bool = False
    """Whether it has arrived without an acknowledgement."""


@dataclass
class Uplink:
    """The sender's own line, which all its links share."""

    bytes_per_s: float
    links: list[VirtualLink] = field(default_factory=list)

    def share(self) -> float:
        """Most bytes a second of a transfer: what slower links leave is shared by the others."""
        caps = sorted(link.own_rate() for link in self.links for _ in link.sending())
        left = self.bytes_per_s
        for place, cap in enumerate(caps):
            share = left / (len(caps) - place)
            if cap > share:
                return share
            left -= cap
        return inf


@dataclass
class VirtualLink:
    """One link. `arrived` lists the frames that came out of it, in order and with repeats."""

    phases: Sequence[Phase]
    uplink: Uplink = field(default_factory=lambda: Uplink(inf))
    now: float = 0.0
    flights: list[Flight] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.uplink.links.append(self)

    @property
    def phase(self) -> Phase:
        """The present phase; the last one goes on for ever."""
        return next((phase for phase in self.phases if self.now < phase.until), self.phases[-1])

    def start(self, frame: int, size: int, on_end: Callable[[Behaviour], None]) -> Flight:
        """Begin a transfer; `on_end` is called from `advance` unless it is stopped before."""
        flight = Flight(frame, size, on_end, self.phase.latency_s, float(size))
        self.flights.append(flight)
        return flight

    def stop(self, flight: Flight) -> None:
        """The sender does not go on with it."""
        if flight in self.flights:
            self.flights.remove(flight)

    def next_change(self) -> float:
        """The time until which everything goes on as it does now."""
        changes = [phase.until for phase in self.phases if phase.until > self.now]
        rate = self.rate()
        changes += [self.now + (f.latency_left or f.bytes_left / rate) for f in self._moving()]
        return min(changes, default=inf)

    def advance(self, to: float, rate: float) -> Iterator[Callable[[], None]]:
        """Let time pass until `to`, at most `next_change`, at `rate`; gives the calls that follow."""
        for flight in self._moving():
            if flight.latency_left:
                flight.latency_left = _less(flight.latency_left, to - self.now)
            else:
                flight.bytes_left = _less(flight.bytes_left, (to - self.now) * rate)
        self.now = to
        for flight in list(self.flights):
            end = self._end(flight)
            if end is not None:
                self.flights.remove(flight)
                yield partial(flight.on_end, end)

    def sending(self) -> list[Flight]:
        """The transfers that take their part of the line."""
        return [flight for flight in self._moving() if not flight.latency_left]

    def own_rate(self) -> float:
        """Bytes a second of each transfer that is past its latency, if the line were wide."""
        return self.phase.bytes_per_s / max(1, len(self.sending()))

    def rate(self) -> float:
        """Bytes a second of each transfer that is past its latency."""
        return min(self.own_rate(), self.uplink.share())

    def _moving(self) -> list[Flight]:
        if self.phase.behaviour is Behaviour.STALLS:
            return []
        return [flight for flight in self.flights if not flight.unheard]

    def _end(self, flight: Flight) -> Behaviour | None:
        behaviour = self.phase.behaviour
        if behaviour is Behaviour.RESETS and not flight.unheard:
            return behaviour
        if behaviour is Behaviour.LATER and not flight.latency_left:
            return behaviour
        if flight.latency_left or flight.bytes_left or flight.unheard:
            return None
        self.arrived.append(flight.frame)
        if behaviour is Behaviour.SILENT:
            flight.unheard = True
            return None
        return Behaviour.GOOD


def _less(left: float, passed: float) -> float:
    """What is left, of seconds or bytes; a rounding error is nothing."""
    rest = left - passed
    return rest if rest > _ROUNDING else 0.0


def steady(latency_s: float = 0.02, bytes_per_s: float = 50e6, uplink: Uplink | None = None) -> VirtualLink:
    """A link that never changes."""
    return VirtualLink([Phase(inf, Behaviour.GOOD, latency_s, bytes_per_s)], uplink or Uplink(inf))
