"""Signals by name, since not every system has each, and handlers in an event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

KILLED: Final = int(getattr(signal, "SIGKILL", 9))
"""The number by which the end of a killed process is told."""


def present(*names: str) -> list[signal.Signals]:
    """Those of `names` that this system has. Windows has no SIGHUP and no SIGKILL, and alone SIGBREAK."""
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]


def handle(number: signal.Signals, call: Callable[[], object]) -> None:
    """Call `call` in the running event loop, which is the main thread's, at each signal `number`."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, call)
    except NotImplementedError:  # Windows' loops have none
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))
