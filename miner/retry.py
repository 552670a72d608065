"""Retry policy of transfers: exponential backoff with jitter, without end while the far side is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from iota.client.orchestrator import is_passing
from iota.data.manifest import DataError
from iota.outer.partition import PartError
from iota.protocol.problems import Problem
from iota.retry import Backoff
from iota.store import StoreError, StoreFull, StoreUnavailable, UrlRefused
from iota.wire.transport import TransferRefused, Unreachable

log = logging.getLogger(__name__)

FAILURES: Final = (StoreError, Problem, PartError, DataError)
"""What moving objects of a run may raise."""
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 10.0
FEW_TRIES: Final = 4
"""How often an object that is missing or wrong is asked for: a store that has just come back may lag."""
SAY_EVERY_S: Final = 30.0

T = TypeVar("T")


class Patience:
    """The pauses between the tries of one transfer: doubling, jittered, and logged once in a while."""

    def __init__(self, what: str, first_pause_s: float = FIRST_PAUSE_S) -> None:
        """`what` is for the log: "storing frame ..."."""
        self._what = what
        self._backoff = Backoff(first_s=first_pause_s, max_s=MAX_PAUSE_S)
        self._failures = 0
        self._definite = 0
        self._said: float | None = None

    async def after(self, error: Exception) -> bool:
        """Pause before the next try; at once False if another try cannot help.

        An outage may last as long as it likes. That an object is missing or wrong is believed when it
        was found so `FEW_TRIES` times, and a refusal at once.
        """
        if not _is_outage(error):
            self._definite += 1
            if isinstance(error, Problem | TransferRefused) or self._definite >= FEW_TRIES:
                return False
        now = time.monotonic()
        if self._said is None or now - self._said >= SAY_EVERY_S:
            log.warning("%s: trying again after %s: %s", self._what, type(error).__name__, error)
            self._said = now
        self._failures += 1
        await asyncio.sleep(self._backoff.pause_s(self._failures))
        return True


async def persist(
    what: str, attempt: Callable[[bool], Awaitable[T]], first_pause_s: float = FIRST_PAUSE_S
) -> T:
    """The result of `attempt(again)`, tried until an outage is over.

    `again` is False at the first try only: URLs that came with an event may have expired since.

    Raises:
        StoreError, Problem, PartError, DataError: another try cannot help.
    """
    patience, again = Patience(what, first_pause_s), False
    while True:
        try:
            return await attempt(again)
        except FAILURES as error:
            if not await patience.after(error):
                raise
        again = True


def _is_outage(error: Exception) -> bool:
    """Whether it passes by itself, or when an operator has seen to it."""
    away = StoreUnavailable | StoreFull | UrlRefused | Unreachable
    return isinstance(error, away) or is_passing(error)
