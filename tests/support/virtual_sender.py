"""A sender in virtual time, which uses the chooser as a miner does: hedges, falls back, begins anew."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from math import inf
from typing import Protocol

from iota.wire.chooser import Choice, Chooser, Outcome, Token
from iota.wire.link import LinkKind
from tests.support.virtual_links import Behaviour, Flight, VirtualLink

FRAME_BYTES = 2_200_000
PAUSE_S = 0.5
"""Before a frame that nothing took is begun anew."""


class Decides(Protocol):
    """What a sender needs of a chooser."""

    def choose(self, peer: str, size: int, now: float, usable: Sequence[LinkKind]) -> Choice: ...
    def next(
        self, peer: str, size: int, now: float, usable: Sequence[LinkKind], tried: Collection[LinkKind]
    ) -> Choice | None: ...
    def began(self, peer: str, kind: LinkKind, size: int, now: float) -> Token: ...
    def ended(self, token: Token, now: float, outcome: Outcome) -> None: ...


class OneLink(Chooser):
    """Every frame over one link, without a hedge."""

    def __init__(self, kind: LinkKind, deadline_s: float = 30.0) -> None:
        super().__init__()
        self._choice = Choice(kind, deadline_s, None, probe=False)

    def choose(self, peer: str, size: int, now: float, usable: Sequence[LinkKind]) -> Choice:
        return self._choice

    def next(
        self, peer: str, size: int, now: float, usable: Sequence[LinkKind], tried: Collection[LinkKind]
    ) -> Choice | None:
        return None


@dataclass(eq=False)
class Running:
    """A transfer of a frame."""

    choice: Choice
    token: Token
    began_s: float
    flight: Flight | None = None
    ended: bool = False

    @property
    def late_s(self) -> float:
        """When it is late."""
        hedge_s = self.choice.hedge_after_s
        return inf if hedge_s is None else self.began_s + hedge_s


@dataclass
class Sent:
    """What became of one frame."""

    number: int
    begun_s: float
    done_s: float = inf
    acknowledged: int = 0
    """Acknowledgements that counted."""
    rounds: int = 0
    """How often all links were open to it anew."""
    most_running: int = 0
    transfers: list[LinkKind] = field(default_factory=list)
    probes: list[LinkKind] = field(default_factory=list)
    by: LinkKind | None = None
    """The link whose acknowledgement counted."""

    @property
    def seconds(self) -> float:
        """From its begin to its acknowledgement."""
        return self.done_s - self.begun_s


@dataclass
class VirtualSender:
    """Sends frames to one peer over virtual links."""

    links: Mapping[LinkKind, VirtualLink]
    chooser: Decides = field(default_factory=Chooser)
    hedges: bool = True
    """Whether hedges are sent."""
    now: float = 0.0
    begun: int = 0
    ended: int = 0
    """Transfers."""
    sent: list[Sent] = field(default_factory=list)
    _timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def send(
        self, frames: int, *, together: int = 1, gap_s: float = 0.0, size: int = FRAME_BYTES
    ) -> list[Sent]:
        """Send frames, `together` at a time, each `gap_s` after one has been acknowledged; waits for all."""
        out: list[Sent] = []
        done = 0

        def begin() -> None:
            if len(out) < frames:
                out.append(Sent(len(self.sent), self.now))
                self.sent.append(out[-1])
                _Sending(self, out[-1], size, end).begin()

        def end() -> None:
            nonlocal done
            done += 1
            self.after(gap_s, begin)

        for _ in range(together):
            self.after(0.0, begin)
        self.run(lambda: done == frames)
        return out

    def settle(self) -> None:
        """Wait until every transfer has ended."""
        self.run(lambda: self.begun == self.ended)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call something later."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._order), call))

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until a condition holds. Raises AssertionError where nothing happens any more."""
        while not until():
            timer = self._timers[0][0] if self._timers else inf
            self.now = min(timer, *(link.next_change() for link in self.links.values()))
            assert self.now < 1e6, "a frame is lost"
            rates = [link.rate() for link in self.links.values()]
            calls = [
                list(link.advance(self.now, rate))
                for link, rate in zip(self.links.values(), rates, strict=True)
            ]
            for call in chain.from_iterable(calls):
                call()
            while self._timers and self._timers[0][0] <= self.now:
                heapq.heappop(self._timers)[2]()


class _Sending:
    """One frame on its way, by the rules of `iota.wire.chooser`."""

    def __init__(self, sender: VirtualSender, sent: Sent, size: int, then: Callable[[], None]) -> None:
        self._sender, self._chooser = sender, sender.chooser
        self._sent, self._size, self._then = sent, size, then
        self._usable = [kind for kind in sender.links if kind is not LinkKind.STORE]
        self._tried: list[LinkKind] = []
        self._running: list[Running] = []

    def begin(self) -> None:
        """Choose a link, of all."""
        if self._sent.acknowledged:
            return
        self._tried = []
        self._sent.rounds += 1
        self._start(self._chooser.choose("peer", self._size, self._sender.now, self._usable))

    def _start(self, choice: Choice) -> None:
        sender, now = self._sender, self._sender.now
        running = Running(choice, self._chooser.began("peer", choice.kind, self._size, now), now)
        sender.begun += 1
        self._tried.append(choice.kind)
        self._running.append(running)
        self._sent.transfers.append(choice.kind)
        self._sent.probes += [choice.kind] * choice.probe
        self._sent.most_running = max(self._sent.most_running, len(self._running))
        running.flight = sender.links[choice.kind].start(
            self._sent.number, self._size, lambda end: self._ended(running, end)
        )
        sender.after(choice.deadline_s, lambda: self._stop(running, Outcome.FAILED))
        if choice.hedge_after_s is not None:
            sender.after(choice.hedge_after_s, lambda: self._hedge(running))

    def _hedge(self, running: Running) -> None:
        """Start another link beside one that is late; of two, the one that began first makes way."""
        if running.ended or self._sent.acknowledged or not self._sender.hedges:
            return
        choice = self._next()
        if choice is not None:
            for other in [other for other in self._running if other is not running]:
                self._stop(other, Outcome.CANCELLED)
            self._start(choice)

    def _next(self) -> Choice | None:
        return self._chooser.next("peer", self._size, self._sender.now, self._usable, self._tried)

    def _ended(self, running: Running, how: Behaviour) -> None:
        if running.ended:  # stopped at this very moment
            return
        outcomes = {Behaviour.GOOD: Outcome.ARRIVED, Behaviour.LATER: Outcome.REFUSED_LATER}
        self._end(running, outcomes.get(how, Outcome.FAILED))

    def _stop(self, running: Running, outcome: Outcome) -> None:
        if not running.ended:
            assert running.flight is not None
            self._sender.links[running.choice.kind].stop(running.flight)
            self._end(running, outcome)

    def _end(self, running: Running, outcome: Outcome) -> None:
        running.ended = True
        self._running.remove(running)
        self._sender.ended += 1
        self._chooser.ended(running.token, self._sender.now, outcome)
        if self._sent.acknowledged or outcome is Outcome.CANCELLED:
            return
        if outcome is Outcome.ARRIVED:
            self._done(running.choice.kind)
        elif self._running:
            other = self._running[0]
            if other.late_s <= self._sender.now:
                self._hedge(other)
        elif outcome is Outcome.REFUSED_LATER or (choice := self._next()) is None:
            self._sender.after(PAUSE_S, self.begin)
        else:
            self._start(choice)

    def _done(self, by: LinkKind) -> None:
        self._sent.acknowledged += 1
        self._sent.done_s, self._sent.by = self._sender.now, by
        for other in list(self._running):
            if not other.choice.probe:
                self._stop(other, Outcome.CANCELLED)
        self._then()
