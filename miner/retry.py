"""Retry policy of transfers: exponential backoff with jitter, without end while the far side is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from iota.client.run_objects import is_outage
from iota.data.manifest import DataError
from iota.outer.partition import PartError
from iota.protocol.problems import Problem
from iota.retry import Backoff
from iota.store import StoreError
from iota.wire.transport import TransferRefused, TransportError, Unreachable

log = logging.getLogger(__name__)

FAILURES: Final = (StoreError, TransportError, Problem, PartError, DataError)
"""What moving objects of a run may raise."""
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 10.0
FEW_TRIES: Final = 4
"""How often an object that is missing or wrong is asked for: a store that has just come back may lag."""
SAY_EVERY_S: Final = 30.0

T = TypeVar("T")


class NotWanted(Exception):
    """Nobody has a use any more for what was tried."""


async def persist(
    what: str,
    attempt: Callable[[bool], Awaitable[T]],
    *,
    wanted: Callable[[], bool] = lambda: True,
    first_pause_s: float = FIRST_PAUSE_S,
) -> T:
    """The result of `attempt(again)`, tried while it is wanted: an outage may last as long as it likes.

    That an object is missing or wrong is believed when it was found so `FEW_TRIES` times, and a refusal at
    once. `again` is False at the first try only: URLs that came with an event may have expired since. `what`
    is for the log: "storing frame ...".

    Raises:
        StoreError, TransportError, Problem, PartError, DataError: another try cannot help.
        NotWanted: before a try.
    """
    backoff = Backoff(first_s=first_pause_s, max_s=MAX_PAUSE_S)
    failures = definite = 0
    said: float | None = None
    while wanted():
        try:
            return await attempt(failures > 0)
        except FAILURES as error:
            failures += 1
            if not (isinstance(error, Unreachable) or is_outage(error)):
                definite += 1
                if isinstance(error, Problem | TransferRefused) or definite >= FEW_TRIES:
                    raise
            now = time.monotonic()
            if said is None or now - said >= SAY_EVERY_S:
                log.warning("%s: trying again after %s: %s", what, type(error).__name__, error)
                said = now
        await asyncio.sleep(backoff.pause_s(failures))
    raise NotWanted(what)
