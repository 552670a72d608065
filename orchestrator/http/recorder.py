"""The only path into the coordinator: an entry is journaled first, then applied, in one order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from iota.console.counts import counted
from iota.console.durations import LINE_EVERY_S
from iota.console.watch import Watch
from iota.protocol.problems import Problem, ProblemType
from orchestrator.coordinator import Coordinator, Entry
from orchestrator.http.metrics import Metrics
from orchestrator.journal import Journal, JournalBroken, JournalUnavailable, Record

MAX_WAITING: Final = 4096
"""Entries that may wait for a commit; further ones are refused."""
MAX_TOGETHER: Final = 256
"""Entries in one commit: their fsync is shared, and applying them blocks the event loop."""
_RETRY_S: Final = 5.0
"""Retry-After of a refused entry."""
_log = logging.getLogger(__name__)


class Recorder:
    """Appends entries to the journal and applies them to the coordinator, in the same order.

    Entries that wait at the same time share a commit, which runs in a separate thread. A caller that derives
    an entry from the coordinator's state must hold a lock (`lock_for`, for joins also `join_lock`) from
    reading the state until `record` returns, since other entries are applied in between.
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
        self._watch = Watch("the run's journal")
        self._last_at = 0.0
        self._queue: asyncio.Queue[tuple[Record, asyncio.Future[None]]] = asyncio.Queue(MAX_WAITING)
        self._locks: dict[str, asyncio.Lock] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self.join_lock = asyncio.Lock()
        self.observers: list[Callable[[Entry], None]] = []
        """Called with each entry after it was applied, also during a replay."""
        self.after: list[Callable[[], None]] = []
        """Called after each commit of new entries, once they are applied."""
        self.highest_nonce: Callable[[], int] = lambda: 0
        """Stored with each commit: see `RequestVerifier.highest_nonce`."""

    def lock_for(self, hotkey: str) -> asyncio.Lock:
        """The lock for entries about this hotkey."""
        return self._locks.setdefault(hotkey, asyncio.Lock())

    def stamp(self) -> float:
        """The time of the next entry (Unix seconds). It never decreases, even if the clock does."""
        self._last_at = max(self._last_at, self._clock())
        return self._last_at

    def restore(self) -> int:
        """Apply every journaled entry, and return their number."""
        count, said_at = 0, time.monotonic()
        for entry in self._journal.replay():
            self._apply(entry)
            self._last_at = max(self._last_at, entry.at)
            count += 1
            if time.monotonic() >= said_at + LINE_EVERY_S:
                _log.info("replaying the journal: %s so far", counted(count, "entry"))
                said_at = time.monotonic()
        return count

    async def record(self, entry: Entry, signature: str = "") -> None:
        """Journal and apply an entry; returns when both are done.

        `signature` is that of a `Exchanged` with receipts. Raises Problem (UNAVAILABLE): nothing was stored.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((Record(entry, signature), stored))
        except asyncio.QueueFull:
            raise Problem(ProblemType.UNAVAILABLE, "too much waits to be stored", retry_after=1) from None
        await stored

    async def run(self) -> None:
        """Commit and apply entries until cancelled. Raises JournalBroken: nothing more can be recorded."""
        try:
            while True:
                group = [await self._queue.get()]
                while len(group) < MAX_TOGETHER and not self._queue.empty():
                    group.append(self._queue.get_nowait())
                await self._commit(group)
        finally:
            while not self._queue.empty():
                self._fail([self._queue.get_nowait()], "the orchestrator is stopping")
            self._thread.shutdown()

    async def _commit(self, group: list[tuple[Record, asyncio.Future[None]]]) -> None:
        records = [record for record, _ in group]
        loop, begun = asyncio.get_running_loop(), time.perf_counter()
        work = loop.run_in_executor(self._thread, self._journal.append, records, self.highest_nonce())
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])  # the thread cannot be stopped: wait until its commit has ended
            self._fail(group, "the orchestrator is stopping")
            raise
        except JournalUnavailable as error:
            self._fail(group, f"{error}; the operator must make room")
            self._watch.failed(error, _RETRY_S)
            return
        except JournalBroken:
            self._fail(group, "the journal is broken; the orchestrator stops")
            raise
        self._watch.passed()
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

    @staticmethod
    def _fail(group: list[tuple[Record, asyncio.Future[None]]], why: str) -> None:
        for _, stored in group:
            if not stored.done():
                stored.set_exception(Problem(ProblemType.UNAVAILABLE, why, retry_after=_RETRY_S))
