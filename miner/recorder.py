"""The thread in which a replica's results are read back, and its frames and receipts written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from iota.compute.errors import BadValueError

T = TypeVar("T")


class Recorder:
    """Calls run one at a time, in the order in which they are made: that of receipts is that of the ops.

    After an op that could not be recorded no later one is: its error ends the replica's life, and the ops
    that had started are repeated, as after a crash.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._failure: Exception | None = None

    def record(self, call: Callable[[], T]) -> Future[T]:
        """Queue what records an op; any thread may. Errors other than BadValueError end the recording."""
        return self._pool.submit(self._record, call)

    async def run(self, call: Callable[[], T]) -> T:
        """Run another call in the thread, after those before it; raises what it raises."""
        return await asyncio.wrap_future(self._pool.submit(self._unless_failed, call))

    def close(self) -> None:
        """Finish the running call, discard the queued ones and end the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _record(self, call: Callable[[], T]) -> T:
        try:
            return self._unless_failed(call)
        except BadValueError:
            raise
        except Exception as error:  # whatever it is: a chain with a gap must not go on
            self._failure = error
            raise

    def _unless_failed(self, call: Callable[[], T]) -> T:
        if self._failure is not None:
            raise self._failure
        return call()
