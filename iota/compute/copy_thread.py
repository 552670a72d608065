"""Work on copies of a state, in a thread of its own: hashing and writing them while the device goes on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from iota.compute.host_copy import HostCopy
from iota.compute.state import StageState
from iota.planning.needs import STATE_COPIES

T = TypeVar("T")


class CopyThreadClosed(Exception):
    """The thread takes no copies any more."""


class CopyThread:
    """Takes copies in the order in which they are given. `give` is called in the device thread."""

    def __init__(self, name: str) -> None:
        """`name` is the thread's."""
        self._free = threading.Semaphore(STATE_COPIES)
        self._closing = threading.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._copies: deque[HostCopy] = deque()

    def give(self, copy: Callable[[], HostCopy], work: Callable[[StageState], T]) -> Future[T]:
        """Start a copy by `copy`, and queue `work` on it. Waits first while there are `STATE_COPIES`.

        Raises CopyThreadClosed, also while it waits.
        """
        self._free.acquire()
        with self._closing:
            if self._closed:
                raise CopyThreadClosed
            self._copies.append(copy())
            made = self._pool.submit(self._work, work)
        made.add_done_callback(lambda _: self._free.release())
        return made

    def close(self) -> None:
        """Finish the work that runs, discard the rest and its copies, and end the thread."""
        with self._closing:
            self._closed = True
        self._free.release()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._copies.clear()

    def _work(self, work: Callable[[StageState], T]) -> T:
        state = self._copies.popleft().result()
        try:
            return work(state)
        except OSError as error:
            raise error.with_traceback(None) from None  # its frames would keep the copy
        finally:
            del state
