"""The coordinator's small data structures against the plain lists and counts that they stand for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from iota.protocol.events import AuditsClosed, Event, FrameReady
from iota.protocol.frames import Direction
from iota.simulate.names import fake_hotkey
from orchestrator.coordinator.event_log import EventLog
from orchestrator.coordinator.routes import GRAIN, interleave
from orchestrator.coordinator.waiting import Waiting
from tests.support.coordinators import frame

# ---- the events of a member -------------------------------------------------------------------------

LOG_MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.integers(1, 5)),
        st.tuples(st.just("other"), st.integers(1, 3)),
        st.tuples(st.just("age"), st.just(0)),
        st.tuples(st.just("forget"), st.integers(0, 40)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(moves=LOG_MOVES, limit=st.one_of(st.none(), st.integers(0, 12)))
def test_a_log_of_events_answers_as_a_list_of_them(moves: list[tuple[str, int]], limit: int | None) -> None:
    log, events, forgotten = EventLog(), list[tuple[int, Event]](), 0
    for move, count in moves:
        match move:
            case "frame" | "other":
                for _ in range(count):
                    event = _event(len(events), of_a_frame=move == "frame")
                    log.append(event)
                    events.append((len(events) + 1, event))
            case "age":
                log.age()
            case "forget":
                forgotten = max(forgotten, min(count, len(events)))
                log.forget_through(forgotten)
        assert log.next_seq == len(events) + 1
        for number in range(forgotten, len(events) + 1):
            wanted, found = events[number:], log.after(number, limit)
            if limit is None:
                assert found == wanted
            else:  # an answer may be shorter, but for the last one it is not empty
                assert found == wanted[: len(found)]
                assert min(1, limit, len(wanted)) <= len(found) <= limit
    assert len(log.after(0)) <= len(events)


@settings(max_examples=60, deadline=None)
@given(moves=LOG_MOVES, limit=st.integers(1, 12))
def test_a_log_of_events_is_read_to_its_end_in_answers_of_a_limited_length(
    moves: list[tuple[str, int]], limit: int
) -> None:
    log = EventLog()
    for move, count in moves:
        if move == "age":
            log.age()
        for _ in range(count if move in ("frame", "other") else 0):
            log.append(_event(log.next_seq, of_a_frame=move == "frame"))
    read: list[tuple[int, Event]] = []
    while found := log.after(read[-1][0] if read else 0, limit):
        read += found
    assert read == log.after(0)
    assert [number for number, _ in read] == list(range(1, log.next_seq))


def _event(number: int, *, of_a_frame: bool) -> Event:
    if not of_a_frame:
        return AuditsClosed(epoch=number)
    notice = frame(0, number, 0, 0, 0, Direction.FORWARD)
    return FrameReady(notice=notice, sender=fake_hotkey(0))


# ---- things that wait -------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["begin", "begin", "end", "restart", "pass"]), st.integers(0, 5)),
        max_size=40,
    ),
    limit_s=st.sampled_from([0.0, 1.0, 3.0, 10.0]),
)
def test_what_waits_is_overdue_as_a_table_of_times_says(moves: list[tuple[str, int]], limit_s: float) -> None:
    waiting, since, now = Waiting[int](), dict[int, float](), 100.0
    for move, number in moves:
        match move:
            case "begin":
                waiting.begin(number, now)
                since[number] = now
            case "end":
                waiting.end(number)
                since.pop(number, None)
            case "restart":
                waiting.restart(now)
                since = dict.fromkeys(since, now)
            case "pass":
                now += number
        assert (set(waiting), len(waiting)) == (since.keys(), len(since))
        assert {key: waiting.since(key) for key in since} == since
        overdue = waiting.overdue(now, limit_s)
        assert set(overdue) == {key for key, begun in since.items() if now > begun + limit_s}
        assert [since[key] for key in overdue] == sorted(since[key] for key in overdue)
        coming = (begun + limit_s for begun in since.values() if begun + limit_s > now)
        assert waiting.next_due(now, limit_s) == min(coming, default=None)


# ---- turns ------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, GRAIN), min_size=1, max_size=12), st.integers(0, 80))
def test_turns_are_those_of_the_naive_round_robin(weights: list[int], count: int) -> None:
    credit, turns = [0] * len(weights), []
    for _ in range(count):
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        chosen = credit.index(max(credit))
        credit[chosen] -= sum(weights)
        turns.append(chosen)
    assert interleave(weights, count) == turns
