"""SIGINT (Ctrl-C) and SIGTERM stop a long-running process in order, instead of ending it at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterable
from typing import Any


def call_on_stop(
    stop: Callable[[], object], signals: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
) -> None:
    """Call `stop` in the running event loop at each of `signals`."""
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, stop)


async def run_until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    """Run `work`; True if it ended by itself, False if a signal or the caller cancelled it."""
    task = asyncio.create_task(work)
    call_on_stop(task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True
