"""The room for frames that come in: which may be read now, which wait, which are answered "later". Pure.

The room is the only credit between miners: a sender offers a frame, and the receiver reads it when there is
room. What the run needs to go on is never refused for lack of it: backward frames, which free what forwards
hold, and frames of the earliest open step, for which all others wait. These are urgent. They have a reserve
beyond all other bounds, each peer its own, so no other frame and no other peer can take their room.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

from iota.protocol.frames import Direction, FrameName

Step = tuple[int, int]
"""(epoch, step)"""
Lane = tuple[str, Direction]
"""What comes from one peer in one direction."""
_Key = TypeVar("_Key")


@dataclass(frozen=True, kw_only=True)
class RoomLimits:
    """The bounds of a `ReceivingRoom`. A frame that is larger than a bound has room where it is alone."""

    peer_bytes: int
    """Being read from one peer in one direction."""
    total_bytes: int
    """Being read from all peers before frames wait that are not urgent."""
    reserve_bytes: int
    """Of urgent frames of one peer and direction, beyond `peer_bytes`."""
    max_waiting: int = 4
    """Frames of one peer that wait; another that is not urgent is answered "later"."""
    max_copies: int = 2
    """Transfers of one frame at a time: a sender hedges one that is late by one other."""

    @classmethod
    def for_frames(cls, size: int) -> RoomLimits:
        """Bounds for a run whose frames have `size` bytes.

        Four frames keep a line full whose round trip is as long as a frame. 64 are what a replica with many
        neighbours reads at once (141 MB of 2.2 MB each). A correct peer has fewer than 32 urgent frames on
        their way, and a hostile one takes no more memory than that.
        """
        return cls(peer_bytes=4 * size, total_bytes=64 * size, reserve_bytes=32 * size)


@dataclass(eq=False, slots=True)
class Place:
    """A frame in the room: it is read, or waits for that."""

    sender: str
    name: FrameName
    size: int
    """Bytes."""
    order: int
    """Of arrival."""
    reading: bool = False

    @property
    def step(self) -> Step:
        """The step that it belongs to."""
        return self.name.epoch, self.name.step

    @property
    def lane(self) -> Lane:
        """The peer and direction that its bytes are bounded with."""
        return self.sender, self.name.direction


class ReceivingRoom:
    """Bytes that are being read, and frames that wait to be.

    They go on in order: backward before forward, an earlier step before a later one, then as they came; where
    a peer's own room is full, frames of others pass. Calls are linear in the frames that wait.
    """

    def __init__(self, limits: RoomLimits) -> None:
        self._limits = limits
        self._earliest: Step = (0, 0)
        self._waiting: list[Place] = []
        """In order."""
        self._waits: Counter[str] = Counter()
        """By sender: frames that wait."""
        self._copies: Counter[tuple[str, FrameName]] = Counter()
        self._lanes: Counter[Lane] = Counter()
        """Bytes being read."""
        self._total = self._arrivals = 0

    @property
    def reading_bytes(self) -> int:
        """Bytes of the frames that are being read."""
        return self._total

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return len(self._waiting)

    def ask(self, sender: str, name: FrameName, size: int) -> Place | None:
        """A place for a frame of `size` bytes, whose head was checked; `release` follows for each.

        It may be read at once if it is `reading`; else a later call of the room gives it. None: "later".
        """
        if self._copies[sender, name] >= self._limits.max_copies:
            return None
        self._arrivals += 1
        place = Place(sender, name, size, self._arrivals)
        self._copies[sender, name] += 1
        self._waits[sender] += 1
        insort(self._waiting, place, key=_rank)
        self._admit()
        if place.reading or self._urgent(place) or self._waits[sender] <= self._limits.max_waiting:
            return place
        self._leave(place)
        return None

    def release(self, place: Place) -> list[Place]:
        """A place is left: it was read, or its frame does not come. Returns those that may be read now.

        Raises ValueError for one that was left before.
        """
        self._leave(place)
        return self._admit()

    def open_from(self, step: Step) -> list[Place]:
        """The earliest open step is `step`. Returns the places that may be read now."""
        self._earliest = step
        return self._admit()

    def _admit(self) -> list[Place]:
        """Begin to read what has room, in order."""
        admitted: list[Place] = []
        full: set[Lane] = set()
        for place in self._waiting:
            if place.lane in full:
                continue
            if not self._lane_fits(place):
                full.add(place.lane)
            elif self._urgent(place) or self._total_fits(place):
                admitted.append(place)
                self._read(place)
            else:
                break  # those after it are not urgent either, and do not pass it
        if admitted:
            self._waiting = [place for place in self._waiting if not place.reading]
        return admitted

    def _urgent(self, place: Place) -> bool:
        return place.name.direction is Direction.BACKWARD or place.step <= self._earliest

    def _lane_fits(self, place: Place) -> bool:
        reserve = self._limits.reserve_bytes if self._urgent(place) else 0
        return _fits(self._lanes[place.lane], place.size, self._limits.peer_bytes + reserve)

    def _total_fits(self, place: Place) -> bool:
        return _fits(self._total, place.size, self._limits.total_bytes)

    def _read(self, place: Place) -> None:
        place.reading = True
        self._lanes[place.lane] += place.size
        self._total += place.size
        _take(self._waits, place.sender, 1)

    def _leave(self, place: Place) -> None:
        if place.reading:
            place.reading = False
            self._total -= place.size
            _take(self._lanes, place.lane, place.size)
        else:
            self._waiting.remove(place)
            _take(self._waits, place.sender, 1)
        _take(self._copies, (place.sender, place.name), 1)


def _rank(place: Place) -> tuple[bool, Step, int]:
    return place.name.direction is Direction.FORWARD, place.step, place.order


def _fits(present: int, size: int, bound: int) -> bool:
    return present == 0 or present + size <= bound


def _take(counts: Counter[_Key], key: _Key, less: int) -> None:
    """Subtract from a count, which takes no memory at zero."""
    counts[key] -= less
    if not counts[key]:
        del counts[key]
