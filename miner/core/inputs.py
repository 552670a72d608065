"""The frames that the ops of one epoch read: who sends them, which are here, and which were denied.

A frame may be used if its sender was given its attempt, by the plan or by a re-route: a receipt that names
another attempt is refused, and the chain ends there. Pushed frames are taken from the replica that has the
attempt now. The first one that is here becomes the input of its op, and stays it: a receipt may name it. What
another attempt sends later is kept beside it, so that its sender's delivery counts.

An op that gives NaN or Inf on a frame which may not be in the store has it stored first: nobody but its
receiver could read it else. The input is denied until the store has it, and the op runs again then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from iota.protocol.events import FrameReady, Reroute
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import FrameMissing
from iota.protocol.plans import PlannedMicrobatch
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from iota.wire.expectation import Expectation
from iota.wire.frame import FrameHeader, leads_nowhere
from miner.core.effects import DenyFrame, Effect, FetchFrame, FindFrames, LoseState, Say
from miner.core.facts import FrameArrived, FrameLost, FramesSought
from miner.core.route import Neighbour, Place, Route
from miner.core.schedule import Op, Schedule, ScheduledMicrobatch

DENIED = "the op on it gave NaN or Inf"
MAX_BAD_OF_ONE: Final = 4
"""Pushed frames of one sender that may be bad in an epoch: what it sends then must come through the store.
Whoever pushes NaN and stores something better wastes an op of its receiver each time."""
MAX_BAD: Final = 24
"""Those of all senders, before everything must: the orchestrator takes so many denials, and those of what was
acknowledged until then, without holding them against this replica."""


def can_come(spec: RunSpec, stage: int, header: FrameHeader) -> bool:
    """Whether a replica of `stage` can ever have a use for such a frame, whoever sends it."""
    name, schedule = header.name, spec.schedule
    if header.run != spec.id or name.direction.destination(name.stage, spec.layout.stages) != stage:
        return False
    within = name.epoch < schedule.epochs and name.step < schedule.steps
    return within and name.microbatch < spec.planned(name.step) and not leads_nowhere(spec, name)


@dataclass
class InputBook:
    """The routes of the microbatches that this replica has in one epoch, and the frames that came on them."""

    schedule: Schedule
    resumed: bool
    """Whether frames of an earlier process may lie on this disk."""
    routes: dict[Place, Route] = field(default_factory=dict)
    _bad: Counter[str] = field(default_factory=Counter)
    """By sender: frames that this replica has asked to be stored, and that may have made an op bad."""
    _asked: int = 0
    """Frames that it has asked to be stored, since an op had them as inputs and was bad."""

    # ---- routes --------------------------------------------------------------------------------

    def plan(self, step: int, planned: PlannedMicrobatch) -> list[FrameName]:
        """Note the replicas beside this one; returns the names of the frames that it will read."""
        before, after = (Neighbour.planned(hotkey) for hotkey in (planned.before, planned.after))
        place = (step, planned.microbatch)
        self.routes[place] = Route(self._beside(before, after))
        return self._names(place) if self.resumed else []

    def take_over(self, event: Reroute) -> list[FrameName]:
        """This replica has the microbatch from now on; returns names of its inputs that may be on this disk.

        The event does not say which attempts its neighbours have. They are known where this re-route is the
        microbatch's first one, or if the replica had it before.
        """
        place = (event.step, event.microbatch)
        had = self.held(place)
        before, after = (
            Neighbour.taken_over(hotkey, event.attempt) for hotkey in (event.before, event.after)
        )
        route = self.routes[place] = Route(self._beside(before, after), taken_over=True)
        if had is None:
            return self._names(place) if self.resumed else []
        route.remember(had)
        # The orchestrator sends for nothing that was acknowledged here: of whichever attempt it is.
        return list(dict.fromkeys([*route.usable(), *self._names(place)]))

    def move(self, event: Reroute) -> list[FrameName]:
        """A neighbour has changed; returns the names of its frames that may be on this disk."""
        route = self.routes[event.step, event.microbatch]
        direction = Direction.FORWARD if event.stage < self.schedule.stage else Direction.BACKWARD
        sends = direction is Direction.BACKWARD or event.send_forward
        route.beside[event.stage].move(event.miner, event.attempt, sends=sends)
        if (
            sends and route.proofs.pop(direction, None) is not None
        ):  # who should have stored it has it no more
            self.schedule.frame(event.step, event.microbatch, direction)
        place = (event.step, event.microbatch)
        return [name for name in self._names(place) if name.stage == event.stage] if self.resumed else []

    def leave(self, place: Place) -> None:
        """This replica does not have the microbatch any more.

        One that has started again hears this before it has repeated its ops, which its step may count.
        """
        if not self.resumed:
            self.routes.pop(place, None)
        elif place in self.routes:
            self.routes[place].left = True

    def held(self, place: Place) -> Route | None:
        """The route of a microbatch that this replica has."""
        route = self.routes.get(place)
        return None if route is None or route.left else route

    def forget_until(self, step: int) -> None:
        """Forget a step that was applied, and those before it."""
        for place in [place for place in self.routes if place[0] <= step]:
            del self.routes[place]

    def receiver(self, place: Place, stage: int) -> str | None:
        """The replica that this one's frames for `stage` go to; None where there is none."""
        route = self.held(place)
        return route.beside[stage].hotkey if route is not None and stage in route.beside else None

    # ---- frames --------------------------------------------------------------------------------

    def expects(self, header: FrameHeader) -> Expectation:
        """What to think of a frame of this epoch for which `can_come` holds, before it is read."""
        name, place = header.name, (header.name.step, header.name.microbatch)
        if name.step < self.schedule.version:
            return Expectation.OVER
        entry, route = self.schedule.entry(*place), self.routes.get(place)
        if entry is None:
            return Expectation.OVER if self.schedule.is_closed(name.step) else Expectation.EARLY
        if entry.over or route is None:
            return Expectation.OVER
        neighbour = route.beside[name.stage]
        given = neighbour.given.get(name.attempt)
        if given is None:
            return Expectation.EARLY if name.attempt > neighbour.newest else Expectation.WRONG
        known = route.frames.get(name)
        if given != header.sender or (known is not None and known.denied):
            return Expectation.WRONG
        here = known is not None and known.here and not known.found
        if here or name.attempt != neighbour.sends:
            return Expectation.OVER
        mine = route.taken_over or header.receiver == self.schedule.hotkey
        trusted = self._bad[header.sender] < MAX_BAD_OF_ONE and self._asked < MAX_BAD
        return Expectation.EXPECTED if mine and trusted else Expectation.WRONG

    def announce(self, event: FrameReady) -> list[Effect]:
        """A frame is in the store: fetch it, unless it is here and the ops have what they read."""
        name, route = event.notice.name, self._route(event.notice.name)
        if route is None:
            return [FetchFrame(event.notice, event.sender)]
        known = route.frame(name)
        known.announced = event
        if known.here and not known.denied and name.direction in route.inputs:
            return []
        return [] if name in route.sought else [self._fetch(route, event)]

    def reads(self, fact: FrameArrived) -> bool:
        """Whether a frame that has arrived is to be the input of its op.

        No other one is, and its sender was given the attempt.
        """
        name, route = fact.name, self._route(fact.name)
        entry = self.schedule.entry(name.step, name.microbatch)
        if entry is None or (entry.gone and not self.resumed):
            return False
        if route is None:
            return fact.pushed is None and not entry.over
        if name.direction in route.inputs:
            return False
        known = route.frames.get(name)
        denied = known is not None and known.denied
        return fact.pushed is None or (not denied and route.gave(name, fact.pushed.sender))

    def arrived(self, fact: FrameArrived) -> None:
        """A checked frame is on this disk."""
        name, route, reads = fact.name, self._route(fact.name), self.reads(fact)
        if route is not None:
            known = route.frame(name)
            if fact.pushed is None or reads:  # one that is here and not read does not end the wait for it
                route.fetching.discard(name)
            if fact.pushed is None:
                known.fetched, known.denied = True, False
            else:
                known.digest, known.found = fact.pushed.digest, name in route.sought
            if reads:
                route.inputs[name.direction] = name
            if fact.pushed is None and route.proofs.get(name.direction) == name:
                del route.proofs[name.direction]
            used = route.inputs.get(name.direction)
            reads = used is not None and name.direction not in route.proofs
        if reads:
            self.schedule.frame(name.step, name.microbatch, name.direction)

    def find(self, names: list[FrameName]) -> list[Effect]:
        """Look for these frames on this disk."""
        found = []
        for name in names:
            route = self._route(name)
            if route is not None and (sender := route.beside[name.stage].given.get(name.attempt)):
                route.sought.add(name)
                found.append((name, sender))
        return [FindFrames(tuple(found))] if found else []

    def sought(self, fact: FramesSought) -> list[Effect]:
        """The search is over: fetch what is not on this disk and is in the store."""
        effects: list[Effect] = []
        for name in fact.names:
            if (route := self._route(name)) is None:
                continue
            route.sought.discard(name)
            known = route.frame(name)
            if known.announced is not None and not known.here:
                effects.append(self._fetch(route, known.announced))
        return effects + [effect for step in {name.step for name in fact.names} for effect in self.lost(step)]

    def missed(self, fact: FrameLost) -> list[Effect]:
        """A frame that was announced cannot be had."""
        if route := self._route(fact.name):
            route.fetching.discard(fact.name)
        return self.lost(fact.name.step)

    def lost(self, step: int) -> list[Effect]:
        """What to do where a closed step counts a microbatch whose input this disk has lost.

        Only a replica that has started again runs ops of closed steps: nobody sends their frames again.
        """
        if not self.resumed:
            return []
        for entry in self.schedule.counted(step):
            for direction in self._lacks(entry):
                route = self.routes.get((step, entry.index))
                waits = route is not None and any(
                    name.direction is direction for name in (*route.sought, *route.fetching)
                )
                if not waits:
                    place = f"microbatch {entry.index} of step {step}"
                    return [LoseState(f"{place} counts, and this disk has lost an input of it")]
        return []

    def deny(self, op: Op, bad: Collection[Direction]) -> list[Effect]:
        """An op gave NaN or Inf: what has its inputs stored that may not be; empty if all of them are.

        The op is to run again on what the store has. The orchestrator judges by all inputs; those that are
        known to be `bad`, if any, count against their senders alone.
        """
        place = (op.step, op.microbatch)
        route, entry = self.routes.get(place), self.schedule.entry(*place)
        if route is None or entry is None or entry.over or entry.attempt != op.attempt:
            return []
        effects: list[Effect] = []
        for direction, name in list(route.inputs.items()):  # those that it has not read as well
            if direction is Direction.FORWARD and entry.forward_receipted:
                effects += self._prove(route, name, not bad or direction in bad)
            else:
                effects += self._deny(route, name, not bad or direction in bad)
        if effects and op.kind is OpKind.BACKWARD:
            self.schedule.recompute(entry)
        return effects

    def _deny(self, route: Route, name: FrameName, counts: bool) -> list[Effect]:
        """Let go of an input, unless it is in the store as it is here; another one takes its place."""
        known = route.frame(name)
        if known.stored:
            return []
        known.denied = True
        del route.inputs[name.direction]
        self.schedule.lack(name.step, name.microbatch, name.direction)
        effects = [DenyFrame(name), *self.find(route.others(name))]
        if known.announced is not None:
            return [*effects, self._fetch(route, known.announced)]
        return [*effects, *(self._ask_for(route, name, counts) if name == route.current(name) else ())]

    def _prove(self, route: Route, name: FrameName, counts: bool) -> list[Effect]:
        """Wait with an input that a receipt names until the store has what the orchestrator knows of it."""
        current = route.current(name)
        if current is None or route.frame(name).stored or route.frame(current).announced is not None:
            return []
        route.frame(current).denied = True
        route.proofs[name.direction] = current
        self.schedule.lack(name.step, name.microbatch, name.direction)
        return self._ask_for(route, current, counts)

    def _ask_for(self, route: Route, name: FrameName, counts: bool) -> list[Effect]:
        """Have the maker of an input of a bad op store it; whether that `counts` against it."""
        self._asked += 1
        self._bad[route.beside[name.stage].given[name.attempt]] += counts
        return [Say(reports=(FrameMissing(name=name, reason=DENIED),))]

    def _fetch(self, route: Route, event: FrameReady) -> FetchFrame:
        route.fetching.add(event.notice.name)
        return FetchFrame(event.notice, event.sender)

    def _route(self, name: FrameName) -> Route | None:
        return self.routes.get((name.step, name.microbatch))

    def _beside(self, before: Neighbour | None, after: Neighbour | None) -> dict[int, Neighbour]:
        stage = self.schedule.stage
        both = {stage - 1: before, stage + 1: after}
        return {at: neighbour for at, neighbour in both.items() if neighbour is not None}

    def _names(self, place: Place) -> list[FrameName]:
        """The frames that a microbatch's ops will read here, as far as their attempts are known."""
        spec, stage = self.schedule.spec, self.schedule.stage
        names = []
        for at, neighbour in self.routes[place].beside.items():
            direction = Direction.FORWARD if at < stage else Direction.BACKWARD
            if neighbour.sends is not None:
                name = FrameName(
                    epoch=self.schedule.epoch,
                    step=place[0],
                    microbatch=place[1],
                    attempt=neighbour.sends,
                    stage=at,
                    direction=direction,
                )
                if not leads_nowhere(spec, name):
                    names.append(name)
        return names

    def _lacks(self, entry: ScheduledMicrobatch) -> Iterator[Direction]:
        """The inputs of a microbatch that ops left here need and that are not ready."""
        if entry.backward_begun:
            return
        if not entry.input_ready:
            yield Direction.FORWARD
        if not entry.gradient_ready and self.schedule.stage != self.schedule.spec.last_stage:
            yield Direction.BACKWARD
