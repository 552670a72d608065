"""SIGINT (Ctrl-C) and SIGTERM stop a long-running process in order, instead of ending it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from iota.system.signals import handle, present

_STOPS: Final = ("SIGINT", "SIGTERM", "SIGBREAK")
"""SIGBREAK is Windows' Ctrl-Break, by which a supervisor there asks a process to stop."""


def call_on_stop(stop: Callable[[], object], *names: str) -> None:
    """Call `stop` in the running event loop at each of these signals; by default those that stop a process.

    A signal that this system does not have is left out.
    """
    for number in present(*(names or _STOPS)):
        handle(number, stop)


async def run_until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    """Run `work`; True if it ended by itself, False if a signal or the caller cancelled it."""
    task = asyncio.create_task(work)
    call_on_stop(task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True
