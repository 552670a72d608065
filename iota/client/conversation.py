"""The node's side of the exchange: everything said is stored once, everything heard is read once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from iota.client.orchestrator import BACKOFF, PATIENCE_S, OrchestratorClient, is_passing
from iota.protocol.events import Delivered, ExchangeReply
from iota.protocol.messages import MAX_FRAMES, MAX_REPORTS, ExchangeRequest, FrameNotice, NodeStatus, Report
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import ReceiptBatch

_OPEN: Final = 2
_BACKLOG: Final = 4096
_MAX_HINT_S: Final = 30.0
_STALE_S: Final = 30.0
"""A clock that is wrong stays wrong: its owner must hear of it soon."""

ReceiptsAfter = Callable[[int], ReceiptBatch | None]
"""The node's receipts with a seq above the number, from its own log, signed; None when there are none."""


@dataclass
class _Post:
    """One exchange on its way: what it carries is unacknowledged until it is answered."""

    frames: list[FrameNotice]
    reports: list[Report]
    receipts: bool


class Conversation:
    """One member's exchange with the orchestrator. Use as an async context, after `join`.

    At least one exchange is open at any time. News is posted at once in a second one, which makes
    the server answer the first. News is kept until an exchange that carried it was answered, and
    goes out again where that exchange failed; the server recognises what it has. Losing the
    connection, or an orchestrator that starts again, is ridden out for `patience_s`.
    """

    def __init__(
        self,
        client: OrchestratorClient,
        cursor: int,
        *,
        stored: int = 0,
        receipts_after: ReceiptsAfter = lambda seq: None,
        wait_s: float = 5.0,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`cursor` and `stored` (the count of receipts stored) are those of the join's reply."""
        self._client = client
        self._cursor = cursor
        self._stored = self._sent = stored
        self._log_end = stored
        self._receipts_after = receipts_after
        self._wait_s = wait_s
        self._patience_s = patience_s
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
        """Sent with every exchange, for people to look at."""

    @property
    def cursor(self) -> int:
        """Number of the last event heard."""
        return self._cursor

    @property
    def stored(self) -> int:
        """How many of this node's receipts the orchestrator has stored."""
        return self._stored

    def say(
        self,
        *,
        receipts: int = 0,
        frames: Iterable[FrameNotice] = (),
        reports: Iterable[Report] = (),
    ) -> None:
        """Say it as soon as can be; returns at once.

        `receipts` is the seq of the last receipt in the node's log: `receipts_after` is asked for
        those that the orchestrator lacks.
        """
        self._log_end = max(self._log_end, receipts)
        self._frames.extend(frames)
        self._reports.extend(reports)
        self._quiet.clear()
        self._news.set()

    async def events(self) -> AsyncIterator[Delivered]:
        """What the orchestrator says, in order, each once; for one reader.

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

    async def settled(self, timeout_s: float) -> bool:
        """Wait until everything said so far is stored; False when that took too long."""
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._talk()
        except Exception as error:  # noqa: BLE001 - handed to the reader of `events`, who must see it
            self._failure = error
        finally:
            for task in self._posts:
                task.cancel()
            if self._posts:
                await asyncio.wait(self._posts)
            while self._events.full():  # the end must be heard; a reader this late has failed anyway
                self._events.get_nowait()
            self._events.put_nowait(None)

    async def _talk(self) -> None:
        failing_since: float | None = None
        failures = 0
        while True:
            room = len(self._posts) < _OPEN
            if room and (not self._posts or self._has_news() or self._hurry):
                self._post()
                continue
            self._mark_quiet()
            self._news.clear()
            woken = asyncio.create_task(self._news.wait())
            await asyncio.wait({*self._posts, woken}, return_when=asyncio.FIRST_COMPLETED)
            woken.cancel()
            failed = None
            for task in [task for task in self._posts if task.done()]:
                failed = await self._answered(task) or failed
                if failed is None:
                    failing_since, failures = None, 0
            if failed is not None:
                now = time.monotonic()
                failing_since = failing_since or now
                stale = isinstance(failed, Problem) and failed.type is ProblemType.STALE
                if now - failing_since > (min(_STALE_S, self._patience_s) if stale else self._patience_s):
                    raise failed
                hint = (failed.retry_after or 0.0) if isinstance(failed, Problem) else 0.0
                failures += 1
                await asyncio.sleep(BACKOFF.pause_s(failures, min(hint, _MAX_HINT_S)))

    def _has_news(self) -> bool:
        return bool(self._frames or self._reports or self._log_end > self._sent)

    def _post(self) -> None:
        frames, self._frames = self._frames[:MAX_FRAMES], self._frames[MAX_FRAMES:]
        reports, self._reports = self._reports[:MAX_REPORTS], self._reports[MAX_REPORTS:]
        batch = self._receipts_after(self._sent) if self._log_end > self._sent else None
        if batch is not None and batch.receipts:
            self._sent = batch.receipts[-1].seq
        else:
            batch, self._log_end = None, min(self._log_end, self._sent)
        # In a hurry for acknowledgements: this post is answered at once, and makes the server answer others.
        wait_s = 0.0 if self._hurry else self._wait_s
        self._hurry = self._hurry and self._has_news()
        request = ExchangeRequest(
            cursor=self._cursor,
            wait_s=wait_s,
            receipts=batch,
            frames=tuple(frames),
            reports=tuple(reports),
            status=self.status,
        )
        task = asyncio.create_task(self._client.exchange(request, patience_s=0.0), name="exchange")
        self._posts[task] = _Post(frames, reports, batch is not None)

    async def _answered(self, task: asyncio.Task[ExchangeReply]) -> Exception | None:
        """Take the outcome of one exchange: the error where it may pass. Others are raised."""
        post = self._posts.pop(task)
        error = task.exception()
        if error is not None:
            self._frames[:0], self._reports[:0] = post.frames, post.reports
            self._forget_unstored()
            if isinstance(error, Exception) and is_passing(error):
                return error
            raise error
        reply = task.result()
        self._stored = max(self._stored, reply.receipts)
        self._forget_unstored()
        for event in reply.events:
            if event.seq > self._cursor:
                await self._events.put(event)
                self._cursor = event.seq
        return None

    def _forget_unstored(self) -> None:
        """Once no receipts are on their way, those sent and not stored go out again."""
        if not any(post.receipts for post in self._posts.values()):
            self._sent = self._stored

    def _mark_quiet(self) -> None:
        on_the_way = any(p.frames or p.reports or p.receipts for p in self._posts.values())
        if self._has_news() or on_the_way:
            self._quiet.clear()
        else:
            self._quiet.set()
