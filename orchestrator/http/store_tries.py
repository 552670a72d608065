"""Tries at the object store that go on until one succeeds, or it is no longer wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from iota.console.watch import Watch
from iota.protocol.problems import Problem
from iota.retry import Backoff
from iota.store import StoreError
from orchestrator.http.metrics import Metrics

_BACKOFF: Final = Backoff(first_s=0.5, max_s=10.0)
PASSING: Final = (StoreError, OSError, Problem)
"""Errors of a try that another one may not meet. A Problem: the journal has no room."""


class StoreTries:
    """Tries one thing after another, with pauses that grow, and says what is held up."""

    def __init__(self, what: str, metrics: Metrics, scale: float = 1.0) -> None:
        """`what` and `scale` are those of `Watch`."""
        self._watch, self._metrics = Watch(what, scale=scale), metrics

    async def persist(
        self,
        attempt: Callable[[], Awaitable[None]],
        wanted: Callable[[], bool],
        errors: tuple[type[Exception], ...] = PASSING,
    ) -> None:
        """Call `attempt` until it raises none of `errors`, as long as `wanted()` holds before a try."""
        failures = 0
        while wanted():
            try:
                await attempt()
            except errors as error:
                failures += 1
                self._metrics.failure("store")
                pause_s = _BACKOFF.pause_s(failures)
                self._watch.failed(error, pause_s)
                await asyncio.sleep(pause_s)
            else:
                self._watch.passed()
                return
