"""Retry policy of transfers: exponential backoff with jitter, unlimited during outages."""

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
from iota.store import ObjectExists, StoreError
from iota.wire.transport import TransferRefused, TransportError, Unreachable

log = logging.getLogger(__name__)

FAILURES: Final = (StoreError, TransportError, Problem, PartError, DataError)
"""Errors that reading or writing a run's objects may raise."""
FIRST_PAUSE_S: Final = 0.5
"""Pause after the first failure; it doubles up to `MAX_PAUSE_S`."""
MAX_PAUSE_S: Final = 10.0
"""Bounds the delay after an outage: a step waits for its frames."""
FEW_TRIES: Final = 4
"""Tries for an object that is missing or wrong: a store that has just come back may lag behind."""
_LOG_EVERY_S: Final = 30.0
"""Bounds the log during an outage."""

T = TypeVar("T")


class NotWanted(Exception):
    """The run no longer needs the result."""


async def persist(
    what: str,
    attempt: Callable[[bool], Awaitable[T]],
    *,
    wanted: Callable[[], bool] = lambda: True,
    first_pause_s: float = FIRST_PAUSE_S,
) -> T:
    """The result of `attempt(again)`, retried while `wanted()`.

    An outage is retried without limit, a missing or wrong object up to `FEW_TRIES` tries, and a refusal, or a
    key that holds other bytes, not at all.

    Args:
        what: the attempt in words for the log, such as "storing frame ...".
        attempt: gets False at the first try only. Later the URLs of the event may have expired.

    Raises:
        StoreError, TransportError, Problem, PartError, DataError: another try cannot help.
        NotWanted: `wanted()` was false before a try.
    """
    backoff = Backoff(first_s=first_pause_s, max_s=MAX_PAUSE_S)
    failures = definite = 0
    logged: float | None = None
    while wanted():
        try:
            return await attempt(failures > 0)
        except FAILURES as error:
            failures += 1
            if not (isinstance(error, Unreachable) or is_outage(error)):
                definite += 1
                if isinstance(error, Problem | TransferRefused | ObjectExists) or definite >= FEW_TRIES:
                    raise
            now = time.monotonic()
            if logged is None or now - logged >= _LOG_EVERY_S:
                log.warning("%s: trying again after %s: %s", what, type(error).__name__, error)
                logged = now
        await asyncio.sleep(backoff.pause_s(failures))
    raise NotWanted(what)
