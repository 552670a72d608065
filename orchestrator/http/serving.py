"""Serving: the listening socket, signals, and shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from iota.console.signals import call_on_stop
from iota.http.server import listening
from orchestrator.http.app import BACKGROUND, Deps, make_app

_log = logging.getLogger(__name__)


@asynccontextmanager
async def serving(deps: Deps, host: str, port: int) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """Serve while the context is open. Yields the base URL (a free port for 0) and the background task.

    Raises PortUnavailable where the server cannot listen.
    """
    app = make_app(deps)
    async with listening(app, host, port, deps.limits.connections) as url:
        yield url, app[BACKGROUND]


async def serve(deps: Deps, host: str, port: int, started: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGINT or SIGTERM; `started(url)` is called once requests are answered.

    Raises:
        PortUnavailable: the port is taken.
        BaseExceptionGroup: the background tasks failed, so nothing can be recorded any more.
    """
    stop = asyncio.Event()
    call_on_stop(stop.set)
    async with serving(deps, host, port) as (bound, background):
        started(bound)
        asked = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({asked, background}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if background.done():
            background.result()
    _log.info("stopped")
