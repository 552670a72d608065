"""What a watch says of a condition, how it waits, and what it lets through."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from iota.client.orchestrator import OrchestratorUnreachable
from iota.console.conditions import DAY_S, Condition
from iota.console.durations import duration
from iota.console.watch import ConditionStands, Watch, in_thread, pause
from iota.protocol.problems import Problem, ProblemType
from iota.store import StoreUnavailable

GONE = OrchestratorUnreachable("http://me:secret@node.example:8400: Connection refused")


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_the_first_failure_is_said_at_once_with_what_will_be_tried_and_what_can_be_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Watch().failed(GONE)
    (line,) = caplog.messages
    said = ("does not answer", "Connection refused", "since ", "next try in 0.", "until 2", "exit code 1")
    for part in (*said, "if it lasts: check --orchestrator"):
        assert part in line
    assert "secret" not in line


async def test_a_standing_condition_is_repeated_at_intervals_with_how_long_and_how_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, tries = Watch(scale=0.001), 0  # half a minute is 30 ms

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        if len(caplog.messages) < 3:
            raise GONE

    await watch.persevere(attempt)
    first, second, third, last = caplog.messages
    assert "since " in first
    assert "s now, " in second
    assert " tries; next try in" in second
    assert int(re.findall(r"(\d+) tries", third)[0]) > int(re.findall(r"(\d+) tries", second)[0])
    assert "it goes on after" in last
    assert tries > 3, "not every failure is a line"


def test_pauses_grow_to_the_conditions_longest() -> None:
    watch = Watch()
    pauses = [watch.failed(GONE) for _ in range(20)]
    assert pauses[0] < 1
    assert max(pauses) <= Condition.AWAY.backoff.max_s * 1.25


def test_a_server_that_is_busy_for_a_moment_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    watch.failed(Problem(ProblemType.RATE_LIMITED, "slow down"))
    watch.passed()
    assert caplog.messages == []


def test_the_end_of_a_condition_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("reading the base")
    watch.failed(StoreUnavailable("away"))
    watch.passed()
    watch.passed()
    (line,) = [line for line in caplog.messages if "goes on" in line]
    assert line.startswith("reading the base: it goes on after ")
    assert line.endswith(" (store-away)")


@pytest.mark.parametrize(
    "error", [ValueError("give more"), PermissionError(13, "Permission denied", "/x"), KeyError("bug")]
)
async def test_what_does_not_pass_is_raised_at_once(error: Exception) -> None:
    async def attempt() -> None:
        raise error

    with pytest.raises(type(error)):
        await Watch().persevere(attempt)


async def test_a_group_with_a_bug_in_it_is_a_bug() -> None:
    async def attempt() -> None:
        raise ExceptionGroup("tasks", [GONE, KeyError("bug")])

    with pytest.raises(ExceptionGroup):
        await Watch().persevere(attempt)


async def test_alternating_conditions_do_not_put_off_the_end() -> None:
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        raise GONE if tries % 2 else Problem(ProblemType.STALE, "+3 s")

    with pytest.raises(ConditionStands):
        await Watch(scale=3 / DAY_S).persevere(attempt)
    assert tries > 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (34, "34 s"),
        (95, "95 s"),
        (119.9, "2 min"),
        (600, "10 min"),
        (7500, "2 h 5 min"),
        (DAY_S, "1 d"),
    ],
)
def test_durations_are_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_answers_that_alternate_slow_the_tries_and_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    watch, answers = Watch(), (GONE, Problem(ProblemType.STALE, "10 s"))
    pauses = [watch.failed(answers[number % 2]) for number in range(40)]
    assert min(pauses[20:]) > 5
    assert len(caplog.messages) == 2


def test_a_condition_that_comes_and_goes_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    for number in range(100):
        watch.failed((GONE, Problem(ProblemType.STALE, "10 s"))[number % 2])
        watch.passed()
    assert len(caplog.messages) == 4


def test_a_server_says_a_condition_without_an_end_and_outlasts_any(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("the ledger", scale=1e-9, endless=True)
    for _ in range(3):
        watch.failed(GONE)
    assert "if it lasts: " in caplog.messages[0]
    assert not [line for line in caplog.messages if "exit code" in line or "next try" in line]


async def test_a_wait_in_a_thread_ends_with_the_task_that_wants_its_result() -> None:
    waiting = asyncio.create_task(in_thread(lambda: pause(3600)))
    await asyncio.wait([waiting], timeout=0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.get_running_loop().shutdown_default_executor()  # which waits for the thread
