"""The room for frames that come in: its bounds hold, and whoever waits goes on."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from iota.protocol.frames import Direction, FrameName
from iota.wire.receiving_room import Place, ReceivingRoom, RoomLimits

LIMITS = RoomLimits(peer_bytes=20, total_bytes=60, reserve_bytes=15, max_waiting=3)
frames = st.builds(
    FrameName,
    epoch=st.just(0),
    step=st.integers(0, 4),
    microbatch=st.integers(0, 5),
    attempt=st.just(0),
    stage=st.just(1),
    direction=st.sampled_from(Direction),
)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abcdef"), frames, st.integers(1, 10)),
        st.tuples(st.just("release"), st.integers(0, 10**6)),
        st.tuples(st.just("open"), st.integers(0, 4)),
    ),
    max_size=120,
)


class Watched:
    """A room, and beside it all places that it has given."""

    def __init__(self) -> None:
        self.room, self.open = ReceivingRoom(LIMITS), 0
        self.places: list[Place] = []

    def urgent(self, frame: FrameName) -> bool:
        return frame.direction is Direction.BACKWARD or frame.step <= self.open

    def lane(self, sender: str, direction: Direction) -> int:
        """Bytes being read."""
        return sum(p.size for p in self.places if p.reading and p.lane == (sender, direction))

    def ask(self, sender: str, frame: FrameName, size: int) -> None:
        """A frame comes; what is urgent is never refused, and has room whatever others do."""
        copies = sum((p.sender, p.name) == (sender, frame) for p in self.places)
        held = self.lane(sender, frame.direction)
        before = {p for p in self.places if p.reading}
        waits = any(p.lane == (sender, frame.direction) and not p.reading for p in self.places)
        place = self.room.ask(sender, frame, size)
        if self.urgent(frame) and copies < LIMITS.max_copies:
            assert place is not None
            fits = held + size <= LIMITS.peer_bytes + LIMITS.reserve_bytes
            assert place.reading or not fits or (waits and held)
        if copies >= LIMITS.max_copies:
            assert place is None
        assert {p for p in self.places if p.reading} == before
        self.places += [] if place is None else [place]

    def release(self, number: int) -> None:
        """A frame was read, or did not come."""
        place = self.places.pop(number % len(self.places))
        waiting = [p for p in self.places if not p.reading]
        admitted = self.room.release(place)
        assert admitted == [p for p in sorted(waiting, key=rank) if p.reading]

    def check(self) -> None:
        """The bounds."""
        reading = [p for p in self.places if p.reading]
        assert self.room.reading_bytes == sum(p.size for p in reading)
        assert self.room.waiting == len(self.places) - len(reading)
        for sender, direction in {p.lane for p in reading}:
            assert self.lane(sender, direction) <= LIMITS.peer_bytes + LIMITS.reserve_bytes
        waits = Counter(p.sender for p in self.places if not p.reading)
        urgent = Counter(p.sender for p in self.places if not p.reading and self.urgent(p.name))
        assert all(count - urgent[sender] <= LIMITS.max_waiting for sender, count in waits.items())


def rank(place: Place) -> tuple[bool, int, int]:
    """The order in which frames that wait go on."""
    return place.name.direction is Direction.FORWARD, place.name.step, place.order


@given(moves)
@settings(max_examples=400, deadline=None)
def test_bounds_hold_and_what_is_urgent_has_room(steps: list[tuple]) -> None:
    watched = Watched()
    for what, *arguments in steps:
        if what == "ask":
            watched.ask(*arguments)
        elif what == "open":
            watched.open = max(watched.open, arguments[0])
            watched.room.open_from((0, watched.open))
        elif watched.places:
            watched.release(*arguments)
        watched.check()


@given(moves)
@settings(max_examples=200, deadline=None)
def test_frames_that_are_not_urgent_stay_below_the_total(steps: list[tuple]) -> None:
    room, places = ReceivingRoom(LIMITS), []
    for what, *arguments in steps:
        if what == "ask" and arguments[1].direction is Direction.FORWARD and arguments[1].step > 0:
            place = room.ask(*arguments)
            places += [] if place is None else [place]
        elif what == "release" and places:
            room.release(places.pop(arguments[0] % len(places)))
        assert room.reading_bytes <= LIMITS.total_bytes


@given(moves)
@settings(max_examples=200, deadline=None)
def test_everybody_who_waits_goes_on_when_those_before_have_ended(steps: list[tuple]) -> None:
    watched = Watched()
    for what, *arguments in steps:
        if what == "ask":
            watched.ask(*arguments)
    while watched.places:
        reading = [number for number, place in enumerate(watched.places) if place.reading]
        assert reading
        watched.release(reading[0])
    assert (watched.room.reading_bytes, watched.room.waiting) == (0, 0)
