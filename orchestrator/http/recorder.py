"""The one way into the coordinator: journal first, then apply, in one order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from iota.protocol.problems import Problem, ProblemType
from orchestrator.coordinator import Coordinator, Entry
from orchestrator.http.metrics import Metrics
from orchestrator.journal import Journal, JournalBroken, JournalUnavailable, Record

MAX_WAITING: Final = 4096
MAX_TOGETHER: Final = 256
_RETRY_S: Final = 5.0
_log = logging.getLogger(__name__)


class Recorder:
    """Appends entries to the journal and applies them to the coordinator, in the same order.

    Entries that wait at the same time share a commit, which runs in a thread of its own. Whoever
    decides on an entry by looking at the coordinator holds a lock (`of`, or `joins`) from the look
    until `record` returns, since others' entries are applied in between.
    """

    def __init__(
        self,
        journal: Journal,
        coordinator: Coordinator,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._coordinator = coordinator
        self._metrics = metrics
        self._clock = clock
        self._last_at = 0.0
        self._queue: asyncio.Queue[tuple[Record, asyncio.Future[None]]] = asyncio.Queue(MAX_WAITING)
        self._locks: dict[str, asyncio.Lock] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self.joins = asyncio.Lock()
        self.observers: list[Callable[[Entry], None]] = []
        """Called with each entry after it was applied, at a replay too."""
        self.after: list[Callable[[], None]] = []
        """Called after each group of new entries."""
        self.highest_nonce: Callable[[], int] = lambda: 0
        """Stored with each commit: see `RequestVerifier.highest_nonce`."""

    def of(self, hotkey: str) -> asyncio.Lock:
        """The lock for entries about this hotkey."""
        return self._locks.setdefault(hotkey, asyncio.Lock())

    def stamp(self) -> float:
        """The time for the next entry: the clock's, but never before an earlier entry's."""
        self._last_at = max(self._last_at, self._clock())
        return self._last_at

    def restore(self) -> int:
        """Apply every journaled entry; their number."""
        count = 0
        for entry in self._journal.replay():
            self._apply(entry)
            self._last_at = max(self._last_at, entry.at)
            count += 1
        return count

    async def record(self, entry: Entry, signature: str = "") -> None:
        """Returns when the entry is durable and applied.

        Raises:
            Problem: UNAVAILABLE; nothing was stored and nothing changed.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((Record(entry, signature), stored))
        except asyncio.QueueFull:
            raise Problem(ProblemType.UNAVAILABLE, "too much waits to be stored", retry_after=1) from None
        await stored

    async def run(self) -> None:
        """Commit and apply until cancelled. Raises JournalBroken, after which nothing is recorded."""
        try:
            while True:
                group = [await self._queue.get()]
                while len(group) < MAX_TOGETHER and not self._queue.empty():
                    group.append(self._queue.get_nowait())
                await self._commit(group)
        finally:
            self._refuse_waiting()
            self._thread.shutdown()

    async def _commit(self, group: list[tuple[Record, asyncio.Future[None]]]) -> None:
        records = [record for record, _ in group]
        loop, begun = asyncio.get_running_loop(), time.perf_counter()
        work = loop.run_in_executor(self._thread, self._journal.append, records, self.highest_nonce())
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])  # the thread cannot be stopped: the group ends before we do
            self._fail(group, "the orchestrator is stopping")
            raise
        except JournalUnavailable as error:
            _log.error("%s", error)
            self._fail(group, f"{error}; the operator must make room")
            return
        except JournalBroken:
            self._fail(group, "the journal is broken; the orchestrator stops")
            raise
        self._metrics.commit(len(group), time.perf_counter() - begun)
        for record, _ in group:
            self._apply(record.entry)
        for call in self.after:
            call()
        for _, stored in group:
            if not stored.done():
                stored.set_result(None)

    def _apply(self, entry: Entry) -> None:
        self._coordinator.apply(entry)
        for observe in self.observers:
            observe(entry)

    def _refuse_waiting(self) -> None:
        while not self._queue.empty():
            self._fail([self._queue.get_nowait()], "the orchestrator is stopping")

    @staticmethod
    def _fail(group: list[tuple[Record, asyncio.Future[None]]], why: str) -> None:
        for _, stored in group:
            if not stored.done():
                stored.set_exception(Problem(ProblemType.UNAVAILABLE, why, retry_after=_RETRY_S))
