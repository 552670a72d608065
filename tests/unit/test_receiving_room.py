"""The room for frames that come in."""

from __future__ import annotations

import pytest

from iota.protocol.frames import Direction, FrameName
from iota.wire.receiving_room import Place, ReceivingRoom, RoomLimits

FRAME = 100
LIMITS = RoomLimits(peer_bytes=2 * FRAME, total_bytes=4 * FRAME, reserve_bytes=3 * FRAME, max_waiting=2)
FORWARD, BACKWARD = Direction.FORWARD, Direction.BACKWARD


def name(microbatch: int, step: int = 5, direction: Direction = FORWARD) -> FrameName:
    return FrameName(epoch=0, step=step, microbatch=microbatch, attempt=0, stage=0, direction=direction)


def full_room() -> tuple[ReceivingRoom, list[Place]]:
    """A room that two peers have filled with frames that are not urgent."""
    room = ReceivingRoom(LIMITS)
    places = [room.ask(peer, name(number), FRAME) for peer in "ab" for number in range(2)]
    assert all(place is not None and place.reading for place in places)
    return room, [place for place in places if place is not None]


def ask(room: ReceivingRoom, sender: str, frame: FrameName, size: int = FRAME) -> Place:
    place = room.ask(sender, frame, size)
    assert place is not None
    return place


def test_a_peer_waits_for_its_own_room_and_others_do_not() -> None:
    room = ReceivingRoom(LIMITS)
    first, second, third = (ask(room, "a", name(number)) for number in range(3))
    assert (first.reading, second.reading, third.reading) == (True, True, False)
    assert ask(room, "b", name(0)).reading
    assert room.release(first) == [third]
    assert third.reading


def test_directions_have_their_own_room() -> None:
    room = ReceivingRoom(LIMITS)
    for number in range(2):
        ask(room, "a", name(number, direction=BACKWARD))
    assert ask(room, "a", name(0)).reading


def test_a_full_room_lets_nobody_in_but_what_is_urgent() -> None:
    room, _ = full_room()
    assert not ask(room, "c", name(0)).reading
    assert ask(room, "c", name(1, direction=BACKWARD)).reading
    assert ask(room, "a", name(2, direction=BACKWARD)).reading
    room.open_from((0, 4))
    assert ask(room, "c", name(3, step=4)).reading
    assert not ask(room, "c", name(4, step=6)).reading


def test_frames_that_wait_become_urgent_with_their_step() -> None:
    room, _ = full_room()
    later, now = ask(room, "c", name(0, step=6)), ask(room, "d", name(0, step=5))
    assert not now.reading
    assert room.open_from((0, 5)) == [now]
    assert not later.reading


def test_those_that_wait_go_by_step_and_then_by_arrival() -> None:
    room, places = full_room()
    late, first, second = (
        ask(room, "c", name(0, step=7)),
        ask(room, "d", name(0)),
        ask(room, "e", name(0)),
    )
    assert [waiter for place in places[:3] for waiter in room.release(place)] == [first, second, late]


def test_backward_frames_beyond_a_peer_s_reserve_wait_and_come_first() -> None:
    room = ReceivingRoom(LIMITS)
    held = [ask(room, "a", name(number, direction=BACKWARD)) for number in range(5)]
    assert all(place.reading for place in held)
    waiting = [ask(room, "a", name(number, direction=BACKWARD)) for number in range(5, 15)]
    assert not any(place.reading for place in waiting)
    assert ask(room, "b", name(0, direction=BACKWARD)).reading
    forward = ask(room, "b", name(0))
    assert not forward.reading
    assert room.release(held[0]) == [waiting[0]]


def test_more_than_a_few_frames_of_a_peer_that_wait_are_answered_later() -> None:
    room, _ = full_room()
    for number in range(2, 4):
        ask(room, "a", name(number))
    assert room.ask("a", name(4), FRAME) is None
    assert room.waiting == 2
    assert room.ask("c", name(0), FRAME) is not None


def test_a_frame_may_come_twice_at_a_time_and_no_more() -> None:
    room = ReceivingRoom(LIMITS)
    first = ask(room, "a", name(0, direction=BACKWARD))
    ask(room, "a", name(0, direction=BACKWARD))
    assert room.ask("a", name(0, direction=BACKWARD), FRAME) is None
    assert room.ask("b", name(0, direction=BACKWARD), FRAME) is not None
    room.release(first)
    assert room.ask("a", name(0, direction=BACKWARD), FRAME) is not None


def test_a_frame_larger_than_the_room_has_it_alone() -> None:
    room = ReceivingRoom(LIMITS)
    large = ask(room, "a", name(0), 50 * FRAME)
    assert large.reading
    small = ask(room, "a", name(1))
    assert not small.reading
    assert room.release(large) == [small]


def test_a_large_frame_is_not_passed_for_ever_by_small_ones() -> None:
    room = ReceivingRoom(LIMITS)
    first = ask(room, "a", name(0))
    large = ask(room, "a", name(1), 2 * FRAME)
    assert not ask(room, "a", name(2)).reading
    assert room.release(first) == [large]


def test_a_frame_that_waits_for_the_total_is_not_passed_by_a_smaller_one() -> None:
    room, places = full_room()
    large, small = ask(room, "c", name(0), 2 * FRAME), ask(room, "d", name(0))
    assert room.release(places[0]) == []
    assert room.release(places[1]) == [large]
    assert room.release(places[2]) == [small]


def test_who_gives_up_makes_room_once() -> None:
    room, places = full_room()
    waiter = ask(room, "c", name(0))
    assert room.release(waiter) == []
    room.release(places[0])
    assert not waiter.reading
    for place in (waiter, places[0]):
        with pytest.raises(ValueError, match="not in list"):
            room.release(place)
    assert room.reading_bytes == 3 * FRAME
