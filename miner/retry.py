"""Retry policy of transfers: exponential backoff with jitter, until an outage ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from iota.client.orchestrator import OrchestratorUnreachable, UntrustedAnswer
from iota.client.run_objects import is_outage
from iota.console.watch import Watch
from iota.data.manifest import DataError
from iota.outer.partition import PartError
from iota.protocol.problems import Problem
from iota.retry import Backoff
from iota.store import ObjectExists, StoreError
from iota.wire.transport import TransferRefused, TransportError, Unreachable

FAILURES: Final = (
    StoreError, TransportError, Problem, PartError, DataError, OrchestratorUnreachable, UntrustedAnswer
)  # fmt: skip
"""Errors that reading or writing a run's objects may raise."""
FIRST_PAUSE_S: Final = 0.5
"""Pause after the first failure; it doubles up to `MAX_PAUSE_S`."""
MAX_PAUSE_S: Final = 10.0
"""Bounds the delay after an outage: a step waits for its frames."""
FEW_TRIES: Final = 4
"""Tries for an object that is missing or wrong: a store that has just come back may lag behind."""

T = TypeVar("T")


class NotWanted(Exception):
    """The run no longer needs the result."""


async def persist(
    what: str,
    attempt: Callable[[bool], Awaitable[T]],
    *,
    wanted: Callable[[], bool] = lambda: True,
    first_pause_s: float = FIRST_PAUSE_S,
    few_tries: int | None = FEW_TRIES,
) -> T:
    """The result of `attempt(again)`, retried while `wanted()`.

    An outage is retried until the end of its condition, a missing or wrong object up to `few_tries` tries
    (None: like an outage), and a refusal, or a key that holds other bytes, not at all.

    Args:
        what: the attempt in words for the log, such as "storing frame ...".
        attempt: gets False at the first try only. Later the URLs of the event may have expired.

    Raises:
        StoreError, TransportError, Problem, PartError, DataError: another try cannot help.
        NotWanted: `wanted()` was false before a try.
        ConditionStands: an outage did not end.
    """
    backoff, watch = Backoff(first_s=first_pause_s, max_s=MAX_PAUSE_S), Watch(what)
    failures = definite = 0
    while wanted():
        try:
            result = await attempt(failures > 0)
        except FAILURES as error:
            failures += 1
            if not (isinstance(error, Unreachable) or is_outage(error)):
                definite += 1
                hopeless = few_tries is not None and definite >= few_tries
                if isinstance(error, Problem | TransferRefused | ObjectExists) or hopeless:
                    raise
            pause_s = watch.failed(error, backoff.pause_s(failures))
        else:
            watch.passed()
            return result
        await asyncio.sleep(pause_s)
    raise NotWanted(what)
