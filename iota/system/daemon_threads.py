"""Daemon threads for calls that may hang and cannot be cancelled, such as DNS look-ups."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any


class DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a daemon thread, for which neither the event loop nor the process waits at its end.

    It is a `ThreadPoolExecutor` because an event loop accepts no other executor; that class's own threads
    would keep the process alive.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the call in a daemon thread of its own."""
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
                future.set_exception(error)

        Thread(target=work, daemon=True).start()
        return future
