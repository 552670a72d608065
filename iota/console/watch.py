"""Waits for conditions to pass, and says so: the one loop by which nodes outlast them."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from iota.console.classification import passing
from iota.console.command import Stopped, WorkFailed
from iota.console.conditions import Condition
from iota.console.counts import counted
from iota.console.durations import LINE_EVERY_S, duration
from iota.console.redaction import one_line

BRIEF_S: Final = 2.0
"""A server that is busy for less is not worth a line: its clients retry all the time."""
_AGAIN_S: Final = 30.0
"""A condition that comes back sooner than this after it seemed over has lasted throughout."""
_MAX_SAID: Final = 300
"""Characters of an error that are said."""
T = TypeVar("T")
log = logging.getLogger(__name__)


_ended: ContextVar[threading.Event] = ContextVar("ended")
"""Of the thread of `in_thread`: its caller has been cancelled."""


async def in_thread(work: Callable[[], T]) -> T:
    """The result of `work` in a thread; if the caller is cancelled, its next or present `pause` ends it."""
    ended = threading.Event()
    token = _ended.set(ended)  # the thread gets a copy of this context
    try:
        return await asyncio.to_thread(work)
    finally:
        _ended.reset(token)
        ended.set()


def pause(seconds: float) -> None:
    """Sleep, in a command or in the thread of `in_thread`. Raises Stopped there after a cancellation."""
    ended = _ended.get(None)
    if ended is None:
        time.sleep(seconds)
    elif ended.wait(seconds):
        raise Stopped("stopped while it waited")


class ConditionStands(WorkFailed):
    """A condition has stood until its stated end: the process exits with code 1, to be started anew."""


@dataclass
class _Standing:
    """A condition that stands, or seemed over at `passed_at`. Times are monotonic seconds."""

    condition: Condition
    began: float
    """When the work stopped, under this or another condition."""
    since: float
    failures: int = 0
    said_at: float | None = None
    passed_at: float | None = None


class Watch:
    """Says what a node waits for, and waits. One object for each thing that can be held up.

    The first line comes at once, then one at least each `LINE_EVERY_S` seconds, with how long it has lasted,
    how many tries there were and the last error; the end of the condition is said too.

    Args:
        what: what is held up, in words that begin the line; empty for the node itself.
        scale: factor on all times, for tests.
        endless: for a server, which tries nothing by itself and goes on refusing for as long as it lasts.
    """

    def __init__(self, what: str = "", *, scale: float = 1.0, endless: bool = False) -> None:
        self._what, self._scale, self._endless = f"{what}: " if what else "", scale, endless
        self._standing: _Standing | None = None
        self._said: dict[Condition, float] = {}
        """When each was last said: one that comes and goes, as a hostile server's may, floods no log."""

    async def persevere(self, attempt: Callable[[], Awaitable[T]], only: type[Exception] = Exception) -> T:
        """The result of `attempt`, which is called again after each error that is a passing condition.

        `only` is the type of the errors that are outlasted, where others are a mistake of the user.

        Raises:
            ConditionStands: none of the tries succeeded until the condition's end.
            Exception: an error that is no passing condition, or not of the type `only`.
        """
        while True:
            try:
                result = await attempt()
            except only as error:  # what is no condition is raised again
                pause_s = self.failed(error)
            else:
                self.passed()
                return result
            # The failed attempt's objects may form cycles that hold the device's memory.
            gc.collect()
            await asyncio.sleep(pause_s)

    def persevere_blocking(self, attempt: Callable[[], T]) -> T:
        """As `persevere`, for a command that does one thing after another: the thread sleeps."""
        while True:
            try:
                result = attempt()
            except Exception as error:  # noqa: BLE001 - what is no condition is raised again
                pause_s = self.failed(error)
            else:
                self.passed()
                return result
            pause(pause_s)

    def failed(self, error: BaseException, next_s: float | None = None) -> float:
        """Note a failed try, and say what stands if it is time; returns the seconds until the next try.

        `next_s` is that pause where the caller has its own; by default it is the condition's.

        Raises:
            ConditionStands: the condition's end has come.
            BaseException: `error`, if it is no passing condition.
        """
        found = passing(error)
        if found is None:
            raise error
        condition, leaf = found
        now = time.monotonic()
        standing = self._standing = self._after_failure(condition, now)
        lasted_s = now - standing.began
        if lasted_s > condition.end_s * self._scale and not self._endless:
            text = f"{condition.text} ({_shown(leaf)}) for {duration(lasted_s)}; {condition.remedy}"
            raise ConditionStands(f"{self._what}{text}") from error
        pause_s = condition.backoff.pause_s(standing.failures) * self._scale if next_s is None else next_s
        brief = condition is Condition.BUSY and lasted_s < BRIEF_S * self._scale
        said_at = self._said.get(condition)
        due = said_at is None or now - said_at >= LINE_EVERY_S * self._scale
        if due and not brief:
            self._say(standing, leaf, pause_s, now)
        return pause_s

    def passed(self) -> None:
        """Note that the work goes on: a condition that stood is over."""
        standing, now = self._standing, time.monotonic()
        if standing is None or standing.passed_at is not None:
            return
        standing.passed_at = now
        if standing.said_at is not None:
            log.warning(  # like the condition, so that no log level shows only one of the two
                "%sit goes on after %s (%s)",
                self._what, duration(now - standing.began), standing.condition.value,
            )  # fmt: skip

    def _after_failure(self, condition: Condition, now: float) -> _Standing:
        old = self._standing
        if old is not None and old.passed_at is not None:
            came_back = old.condition is condition and now - old.passed_at < _AGAIN_S * self._scale
            old = old if came_back else None
        if old is None:
            return _Standing(condition, now, now, failures=1)
        if old.condition is not condition:
            # Pauses go on growing, or a server whose answers alternate would be asked all the time.
            return _Standing(condition, old.began, now, failures=old.failures + 1)
        if old.passed_at is not None:
            old.passed_at = old.said_at = None
        old.failures += 1
        return old

    def _say(self, standing: _Standing, error: Exception, pause_s: float, now: float) -> None:
        condition, first = standing.condition, standing.said_at is None
        standing.said_at = self._said[condition] = now
        if first:
            lasts = f"since {datetime.now():%H:%M:%S}"
        else:
            lasts = f"for {duration(now - standing.since)} now, {counted(standing.failures, 'try')}"
        log.warning(
            "%s%s (%s), %s; %sif it lasts: %s",
            self._what, condition.text, _shown(error), lasts, self._next(standing, pause_s, now),
            condition.remedy,
        )  # fmt: skip

    def _next(self, standing: _Standing, pause_s: float, now: float) -> str:
        if self._endless:
            return ""
        left_s = standing.condition.end_s * self._scale - (now - standing.began)
        end = datetime.now().astimezone() + timedelta(seconds=left_s)
        return f"next try in {duration(pause_s)}, until {end:%Y-%m-%d %H:%M}, then exit code 1; "


def _shown(error: Exception) -> str:
    """The error on one bounded line, without secrets."""
    text = one_line(str(error)) or type(error).__name__
    return text if len(text) <= _MAX_SAID else f"{text[:_MAX_SAID]}..."
