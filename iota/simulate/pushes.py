"""The frames that simulated miners push to each other: who may push what, and what is to be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from iota.protocol.events import Drop, Event, FrameReady, Plan, Reroute, StoreFrame
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import BadValue, FrameMissing, Report
from iota.protocol.receipts import SignedHeader
from iota.wire.transport import OutgoingFrame

Place = tuple[int, int, int]
"""(epoch, step, microbatch)"""


@dataclass
class FramesOnDisk:
    """The frames that one miner has made, and those that others have pushed to it."""

    made: dict[FrameName, OutgoingFrame] = field(default_factory=dict)
    kept: dict[FrameName, SignedHeader] = field(default_factory=dict)


@dataclass
class RouteBook:
    """What one process of a miner has heard of routes, and of frames that are to come through the store."""

    hotkey: str
    stage: int
    beside: dict[Place, dict[int, str]] = field(default_factory=dict)
    """By microbatch that the miner has: stage -> the replica there, for the stages beside its own."""
    to_store: set[FrameName] = field(default_factory=set)
    """Frames that are not to be pushed."""
    doubts: dict[Place, tuple[BadValue, set[Direction]]] = field(default_factory=dict)
    """A word on NaN that waits until inputs that were pushed lie in the store: those that do not yet."""

    def hear(self, event: Event) -> Report | None:
        """Take an event. The word that can be said now, if there is one."""
        match event:
            case Plan():
                share = event.share
                for planned in share.microbatches:
                    self._meet((share.epoch, share.step, planned.microbatch), planned.before, planned.after)
            case Reroute():
                self._hear_reroute(event)
            case Drop():
                self._give_up((event.epoch, event.step, event.microbatch))
            case StoreFrame(name=name):
                self.to_store.add(name)
            case FrameReady():
                return self._word_after(event.notice.name)
            case _:
                pass
        return None

    def has(self, place: Place) -> bool:
        """Whether the microbatch is this miner's."""
        return place in self.beside

    def expects(self, name: FrameName, sender: str) -> bool:
        """Whether `sender` is the neighbour whose frame goes into an op here."""
        return self.beside.get(place_of(name), {}).get(name.stage) == sender and self._leads_here(name)

    def receiver(self, name: FrameName) -> str:
        """Who is to have a frame that this miner has made, of a microbatch that it has."""
        return self.beside[place_of(name)][_towards(name)]

    def inputs(self, disk: FramesOnDisk, place: Place) -> Iterator[FrameName]:
        """The frames on disk that go into the ops here on a microbatch, the newest last."""
        return (name for name in disk.kept if place_of(name) == place and self._leads_here(name))

    def outputs(self, disk: FramesOnDisk, event: Reroute) -> Iterator[OutgoingFrame]:
        """The frames on disk that go to the stage of a re-route."""
        place = (event.epoch, event.step, event.microbatch)
        for name, frame in disk.made.items():
            if place_of(name) == place and _towards(name) == event.stage:
                yield frame

    def doubt(self, disk: FramesOnDisk, word: BadValue) -> tuple[Report, ...]:
        """What to say of an op that gives NaN: inputs that were pushed are to come through the store
        first."""
        place = (word.epoch, word.step, word.microbatch)
        pushed = list(self.inputs(disk, place))
        if not pushed:
            return (word,)
        self.doubts[place] = word, {name.direction for name in pushed}
        for name in pushed:
            del disk.kept[name]
        return tuple(FrameMissing(name=name, reason="it gives NaN") for name in pushed)

    def _hear_reroute(self, event: Reroute) -> None:
        place = (event.epoch, event.step, event.microbatch)
        if event.stage != self.stage:
            if place in self.beside:
                self.beside[place][event.stage] = event.miner
        elif event.miner == self.hotkey:
            self._meet(place, event.before, event.after)
        else:
            self._give_up(place)

    def _meet(self, place: Place, before: str | None, after: str | None) -> None:
        beside = {self.stage - 1: before, self.stage + 1: after}
        self.beside[place] = {stage: hotkey for stage, hotkey in beside.items() if hotkey is not None}

    def _give_up(self, place: Place) -> None:
        self.beside.pop(place, None)
        self.doubts.pop(place, None)

    def _word_after(self, name: FrameName) -> BadValue | None:
        """The word that waited for this frame in the store, if it waited for no other."""
        if place_of(name) not in self.doubts:
            return None
        word, waited_for = self.doubts[place_of(name)]
        waited_for.discard(name.direction)
        if waited_for:
            return None
        del self.doubts[place_of(name)]
        return word

    def _leads_here(self, name: FrameName) -> bool:
        return _towards(name) == self.stage


def _towards(name: FrameName) -> int:
    return name.stage + (1 if name.direction is Direction.FORWARD else -1)


def place_of(name: FrameName) -> Place:
    """The microbatch of a frame."""
    return name.epoch, name.step, name.microbatch
