"""The node's side of the exchange: messages are delivered at least once, events are read exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

from iota.client.orchestrator import BACKOFF, RETRY_FOR_S, OrchestratorClient, is_transient
from iota.console.watch import Watch
from iota.protocol.events import Acknowledgement, Delivered, ExchangeReply
from iota.protocol.frames import FrameNotice
from iota.protocol.messages import (
    MAX_FRAMES,
    MAX_REPORTS,
    ExchangeRequest,
    NodeStatus,
    Report,
)
from iota.protocol.problems import Problem
from iota.protocol.receipts import ReceiptBatch

_OPEN: Final = 2
"""Exchanges open at once: one waits for events, the other carries new messages."""
_BACKLOG: Final = 4096
"""Events that may wait for the reader; exchanges pause beyond."""
_ACKNOWLEDGED: Final = 8
_MAX_HINT_S: Final = 30.0
"""Longest Retry-After that is followed."""

ReceiptsAfter = Callable[[int], ReceiptBatch | None]
"""Given a seq, the signed batch of the node's later receipts from its own log; None where there are none."""
Missing = Callable[[tuple[str, ...]], object]
"""Told of keys that the node announced and that the store does not have: it must store them again."""


@dataclass
class _Post:
    """The content of one open exchange, unacknowledged until its answer."""

    frames: list[FrameNotice]
    reports: list[Report]
    receipts: bool


class Conversation:
    """The sequence of a member's exchanges with the orchestrator. Use as an async context, after `join`.

    At least one exchange is open at any time. New messages go out at once in a second one, which makes the
    server answer the first. Messages are kept until an exchange with them was answered, and are sent again
    after a failure; the server recognises repeated ones. Failures are retried for `retry_for_s`, to bridge
    lost connections and restarts of the orchestrator.
    """

    def __init__(
        self,
        client: OrchestratorClient,
        cursor: int,
        *,
        session: int = 0,
        stored: int = 0,
        receipts_after: ReceiptsAfter = lambda seq: None,
        on_missing: Missing = lambda keys: None,
        wait_s: float = 5.0,
        retry_for_s: float = RETRY_FOR_S,
        watch: Watch | None = None,
    ) -> None:
        """`cursor`, `session` and `stored` (the number of stored receipts) are those of the join's reply.

        `watch` is told of failed exchanges, and of the first answer after them.
        """
        self._client = client
        self._cursor, self._session = cursor, session
        self._stored = self._sent = stored
        self._log_end = stored
        self._receipts_after = receipts_after
        self._on_missing = on_missing
        self._wait_s = wait_s
        self._retry_for_s = retry_for_s
        self._watch = watch
        self._frames: list[FrameNotice] = []
        self._reports: list[Report] = []
        self._posts: dict[asyncio.Task[ExchangeReply], _Post] = {}
        self._events: asyncio.Queue[Delivered | None] = asyncio.Queue(_BACKLOG)
        self._news = asyncio.Event()
        self._quiet = asyncio.Event()
        self._hurry = False
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self.status: NodeStatus | None = None
        """Sent with every exchange. Informational only."""
        self.acknowledged: dict[int, Acknowledgement] = {}
        """The orchestrator's signed word on this node's stored receipts, the newest for each number of sealed
        epochs, of the newest `_ACKNOWLEDGED` such numbers."""
        self._caught_up: int | None = None
        """Number of the last event before the first answer without any."""

    @property
    def stored(self) -> int:
        """Receipts of this node that the orchestrator has acknowledged."""
        return self._stored

    def is_news(self, delivered: Delivered) -> bool:
        """Whether an event came while this process listened, and is none that it had missed before.

        The reader may be behind: what was missed still waits for it when the first news comes.
        """
        return self._caught_up is not None and delivered.seq > self._caught_up

    def send(
        self, *, receipts: int = 0, frames: Iterable[FrameNotice] = (), reports: Iterable[Report] = ()
    ) -> None:
        """Queue messages for the next exchange; returns at once.

        `receipts` is the seq of the last receipt in the node's log. The batch to send is read with
        `receipts_after`.
        """
        self._log_end = max(self._log_end, receipts)
        self._frames.extend(frames)
        self._reports.extend(reports)
        self._quiet.clear()
        self._news.set()

    async def events(self) -> AsyncIterator[Delivered]:
        """Events of the orchestrator in order, each once; for one reader.

        Raises:
            Problem, UntrustedAnswer, OrchestratorUnreachable: the conversation has failed.
        """
        while True:
            event = await self._events.get()
            if event is None:
                if self._failure is not None:
                    raise self._failure
                return
            yield event

    async def flush(self, timeout_s: float) -> bool:
        """Wait until every message so far is acknowledged; False where that takes longer than `timeout_s`."""
        self._hurry = True
        self._news.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="conversation")
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._talk()
        except Exception as error:  # noqa: BLE001 - raised in the reader of `events`
            self._failure = error
        finally:
            for task in self._posts:
                task.cancel()
            if self._posts:
                await asyncio.wait(self._posts)
            while self._events.full():  # make room for the end mark; a reader this late has failed anyway
                self._events.get_nowait()
            self._events.put_nowait(None)

    async def _talk(self) -> None:
        """Keep exchanges open until one fails for too long, and raise its error."""
        failing_since: float | None = None
        failures = 0
        while True:
            room = len(self._posts) < _OPEN
            if room and (not self._posts or self._has_messages() or self._hurry):
                self._post()
                continue
            self._mark_quiet()
            self._news.clear()
            woken = asyncio.create_task(self._news.wait())
            try:
                await asyncio.wait({*self._posts, woken}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
            failed = None
            for task in [task for task in self._posts if task.done()]:
                failed = await self._answered(task) or failed
                if failed is None:
                    failing_since, failures = None, 0
            if failed is not None:
                now = time.monotonic()
                failing_since = failing_since or now
                if now - failing_since > self._retry_for_s:
                    raise failed
                hint = (failed.retry_after or 0.0) if isinstance(failed, Problem) else 0.0
                failures += 1
                pause_s = BACKOFF.pause_s(failures, min(hint, _MAX_HINT_S))
                if self._watch is not None:
                    self._watch.failed(failed, pause_s)
                await asyncio.sleep(pause_s)

    def _has_messages(self) -> bool:
        return bool(self._frames or self._reports or self._log_end > self._sent)

    def _post(self) -> None:
        """Open an exchange with as many queued messages as fit."""
        frames, self._frames = self._frames[:MAX_FRAMES], self._frames[MAX_FRAMES:]
        batch = self._receipts_after(self._sent) if self._log_end > self._sent else None
        if batch is not None and batch.receipts:
            self._sent = batch.receipts[-1].seq
        else:
            batch, self._log_end = None, min(self._log_end, self._sent)
        # A report may rest on a receipt that was queued before it, and never overtakes it.
        room = MAX_REPORTS if self._sent >= self._log_end else 0
        reports, self._reports = self._reports[:room], self._reports[room:]
        # With `_hurry`, this exchange does not wait, and it makes the server answer the other one.
        wait_s = 0.0 if self._hurry else self._wait_s
        self._hurry = self._hurry and self._has_messages()
        request = ExchangeRequest(
            cursor=self._cursor,
            session=self._session,
            wait_s=wait_s,
            receipts=batch,
            frames=tuple(frames),
            reports=tuple(reports),
            status=self.status,
        )
        task = asyncio.create_task(self._client.exchange(request, retry_for_s=0.0), name="exchange")
        self._posts[task] = _Post(frames, reports, batch is not None)

    async def _answered(self, task: asyncio.Task[ExchangeReply]) -> Exception | None:
        """Process the answer of one exchange. Returns an error that a retry may solve; raises any other."""
        post = self._posts.pop(task)
        error = task.exception()
        if error is not None:
            self._frames[:0], self._reports[:0] = post.frames, post.reports
            self._forget_unstored()
            if isinstance(error, Exception) and is_transient(error):
                return error
            raise error
        reply = task.result()
        if self._watch is not None:
            self._watch.passed()
        self._stored = max(self._stored, reply.receipts)
        if reply.acknowledged is not None:
            self._keep(reply.acknowledged)
        self._forget_unstored()
        if self._caught_up is None and not reply.events:
            self._caught_up = self._cursor
        if reply.missing:
            self._on_missing(reply.missing)
        for event in reply.events:
            if event.seq > self._cursor:
                await self._events.put(event)
                self._cursor = event.seq
        return None

    def _keep(self, said: Acknowledgement) -> None:
        before = self.acknowledged.get(said.sealed)
        if before is None or said.receipts > before.receipts:
            self.acknowledged[said.sealed] = said
        for old in sorted(self.acknowledged)[:-_ACKNOWLEDGED]:
            del self.acknowledged[old]

    def _forget_unstored(self) -> None:
        """Once no exchange carries receipts, mark those that are not stored as unsent."""
        if not any(post.receipts for post in self._posts.values()):
            self._sent = self._stored

    def _mark_quiet(self) -> None:
        """Release `flush` if nothing is queued or unacknowledged."""
        in_flight = any(p.frames or p.reports or p.receipts for p in self._posts.values())
        if self._has_messages() or in_flight:
            self._quiet.clear()
        else:
            self._quiet.set()
