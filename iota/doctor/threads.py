"""Daemon threads for calls that may hang: a DNS look-up cannot be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any


class DaemonThreads(ThreadPoolExecutor):
    """A daemon thread for each call, so that neither the event loop nor the process waits for it at its end.

    An event loop takes nothing but a `ThreadPoolExecutor`, whose own threads the process would wait for.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the call in a daemon thread of its own."""
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised again where the future is awaited
                future.set_exception(error)

        Thread(target=work, daemon=True).start()
        return future
