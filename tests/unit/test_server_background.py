"""Background work without HTTP: blocks, deadlines, silent members, deletions; each survives what it calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

import pytest

from iota.chain import Block, Unavailable
from iota.simulate.names import fake_hotkey
from iota.store import StoreError
from orchestrator.coordinator import Coordinator, Joined, Lost, Tick
from orchestrator.http import background
from orchestrator.http.background import Deletions, Ticker, watch_silence
from orchestrator.http.metrics import Metrics
from orchestrator.http.presence import Presence
from orchestrator.http.recorder import Recorder
from tests.support.journals import MemoryJournal
from tests.support.orchestrators import join_request, make_spec, until


class Desk:
    """A recorder over memory, and what it has recorded."""

    def __init__(self) -> None:
        self.journal, self.metrics = MemoryJournal(), Metrics()
        self.coordinator = Coordinator(make_spec())
        self.recorder = Recorder(self.journal, self.coordinator, self.metrics)

    def entries(self, kind: type) -> list[object]:
        return [entry for entry in self.journal.replay() if isinstance(entry, kind)]


@asynccontextmanager
async def at_work(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


class Chain:
    """Heads that the test gives; None where it cannot be read."""

    def __init__(self, number: int | None) -> None:
        self.number = number
        self.reads = 0

    async def head(self) -> Block:
        self.reads += 1
        if self.number is None:
            raise Unavailable("no node answers")
        return Block(self.number, f"{self.number:064x}", 0.0)


async def test_each_new_block_is_recorded_once_and_an_outage_is_outlived() -> None:
    desk, chain = Desk(), Chain(None)
    ticker = Ticker(chain, desk.coordinator, desk.recorder, desk.metrics, poll_s=0.001)
    async with at_work(desk.recorder.run(), ticker.poll_head()):
        await until(lambda: chain.reads > 2)
        assert not ticker.head_known
        for number in (5, 6, 4):
            chain.number = number
            reads = chain.reads
            await until(lambda reads=reads: chain.reads > reads + 2)  # type: ignore[misc]
        assert [tick.block for tick in desk.entries(Tick)] == [5, 6]
        assert desk.coordinator.state.head.block == 6


async def test_a_deadline_that_passes_is_recorded_as_a_tick() -> None:
    desk = Desk()
    due = iter([0.0])
    desk.coordinator.next_deadline = lambda: next(due, None)  # type: ignore[method-assign]
    ticker = Ticker(Chain(1), desk.coordinator, desk.recorder, desk.metrics, poll_s=10.0)
    ticker.observe(Tick(at=1.0, block=7, block_hash="7" * 64))
    async with at_work(desk.recorder.run(), ticker.watch_deadlines()):
        await until(lambda: len(desk.entries(Tick)) == 1)
        assert [tick.block for tick in desk.entries(Tick)] == [7]


async def test_a_silent_member_is_lost_once_however_long_it_is_silent() -> None:
    desk, presence, hotkey = Desk(), Presence(0.02), fake_hotkey(1)
    async with at_work(
        desk.recorder.run(), watch_silence(desk.coordinator, desk.recorder, presence, silence_s=0.02)
    ):
        await desk.recorder.record(Joined(at=1.0, hotkey=hotkey, request=join_request()))
        await until(lambda: not desk.coordinator.members[hotkey].live)
        await asyncio.sleep(0.05)  # several looks
        assert len(desk.entries(Lost)) == 1


async def test_a_run_that_has_ended_loses_nobody() -> None:
    desk, presence, hotkey = Desk(), Presence(0.02), fake_hotkey(1)
    desk.coordinator.state.run_end_sent = True
    async with at_work(desk.recorder.run()):
        await desk.recorder.record(Joined(at=1.0, hotkey=hotkey, request=join_request()))
        await until(lambda: presence.overdue(hotkey, time.monotonic()))
        async with asyncio.timeout(5):
            await watch_silence(desk.coordinator, desk.recorder, presence, silence_s=0.02)
    assert desk.coordinator.members[hotkey].live


class Store:
    """Counts deletions; fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.deleted, self.tries = failures, list[str](), 0

    async def delete_prefix(self, prefix: str) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise StoreError("the store is away")
        self.deleted.append(prefix)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once; everything else sleeps as it should."""
    sleep = asyncio.sleep
    monkeypatch.setattr(background.asyncio, "sleep", lambda s: sleep(0 if s >= 1 else s))


async def test_what_a_closed_epoch_left_is_deleted_at_the_start_and_whenever_more_is_due() -> None:
    desk, store = Desk(), Store()
    desk.coordinator.closed_prefixes = lambda: ["old/"]  # type: ignore[method-assign]
    deletions = Deletions(desk.coordinator, store, desk.metrics)  # type: ignore[arg-type]
    async with at_work(deletions.run()):
        await until(lambda: store.deleted == ["old/"])
        desk.coordinator.state.outbox.deletions.append("new/")
        deletions.wake()
        await until(lambda: store.deleted == ["old/", "new/"])


async def test_a_deletion_is_tried_again_and_given_up_without_ending_the_work() -> None:
    desk, store = Desk(), Store(failures=7)
    desk.coordinator.closed_prefixes = lambda: ["gone/", "kept/"]  # type: ignore[method-assign]
    deletions = Deletions(desk.coordinator, store, desk.metrics)  # type: ignore[arg-type]
    async with at_work(deletions.run()):
        await until(lambda: store.deleted == ["kept/"])
        assert store.tries == 8
