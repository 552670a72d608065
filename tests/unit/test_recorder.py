"""The recorder: journal first, then the coordinator, in one order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from iota.protocol.problems import Problem, ProblemType
from orchestrator.coordinator import Coordinator, Entry, Tick
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import MAX_TOGETHER, MAX_WAITING, Recorder
from orchestrator.journal import JournalBroken, Record
from tests.support.journals import MemoryJournal
from tests.support.orchestrators import make_spec


def tick(at: float) -> Tick:
    return Tick(at=at, block=int(at), block_hash="0" * 64)


def recorder(
    journal: MemoryJournal, clock: Callable[[], float] = lambda: 0.0
) -> tuple[Recorder, list[Entry]]:
    """A recorder, and the entries that it has applied."""
    made = Recorder(journal, Coordinator(make_spec()), Metrics(), clock)
    applied: list[Entry] = []
    made.observers.append(applied.append)
    return made, applied


@asynccontextmanager
async def at_work(made: Recorder) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, JournalBroken):
            await task


async def test_entries_that_wait_together_share_a_commit_in_their_order() -> None:
    journal = MemoryJournal()
    made, applied = recorder(journal)
    count = MAX_TOGETHER + 10
    waiting = [asyncio.create_task(made.record(tick(n))) for n in range(count)]
    await asyncio.sleep(0)
    async with at_work(made):
        await asyncio.gather(*waiting)
    assert journal.groups == [MAX_TOGETHER, 10]
    assert applied == [record.entry for record in journal.records] == [tick(n) for n in range(count)]


async def test_an_entry_is_applied_before_its_recording_returns() -> None:
    made, applied = recorder(MemoryJournal())
    async with at_work(made):
        await made.record(tick(3))
        assert applied == [tick(3)]


async def test_nothing_is_applied_that_was_not_stored() -> None:
    journal = MemoryJournal()
    made, applied = recorder(journal)
    async with at_work(made):
        journal.full = True
        with pytest.raises(Problem, match="make room") as caught:
            await made.record(tick(1))
        assert caught.value.type is ProblemType.UNAVAILABLE
        journal.full = False
        await made.record(tick(2))
    assert applied == [tick(2)]


async def test_a_broken_journal_fails_all_that_waits_and_ends_the_work() -> None:
    journal = MemoryJournal()
    journal.broken = True
    made, applied = recorder(journal)
    async with at_work(made) as task:
        with pytest.raises(Problem, match="broken"):
            await made.record(tick(1))
        with pytest.raises(JournalBroken):
            await task
    assert applied == []


async def test_more_than_can_wait_is_refused_at_once() -> None:
    made, _ = recorder(MemoryJournal())
    waiting = [asyncio.create_task(made.record(tick(n))) for n in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="too much waits"):
        await made.record(tick(0))
    for task in waiting:
        task.cancel()


def test_times_never_go_back_even_where_the_clock_does() -> None:
    times = iter([5.0, 3.0, 7.0])
    made, _ = recorder(MemoryJournal(), lambda: next(times))
    assert [made.stamp() for _ in range(3)] == [5.0, 5.0, 7.0]


async def test_a_replay_applies_every_entry_and_sets_the_time() -> None:
    journal = MemoryJournal()
    first, _ = recorder(journal)
    async with at_work(first):
        await first.record(tick(9))
    again, applied = recorder(journal)
    assert again.restore() == 1
    assert applied == [tick(9)]
    assert again.stamp() == 9.0


def test_a_long_replay_says_how_far_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("orchestrator.http.recorder.LINE_EVERY_S", 0.0)
    journal = MemoryJournal()
    journal.append([Record(tick(n), "") for n in range(2)], 0)
    recorder(journal)[0].restore()
    assert caplog.messages == [f"replaying the journal: {text} so far" for text in ("1 entry", "2 entries")]
