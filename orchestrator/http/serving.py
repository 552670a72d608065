"""Serving: the listening socket, signals, and shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from iota.console.signals import call_on_stop
from orchestrator.http.app import BACKGROUND, GUARD, Deps, make_app

SHUTDOWN_S: Final = 10.0
"""Longest wait for open requests at shutdown."""
_log = logging.getLogger(__name__)


class PortUnavailable(ValueError):
    """The server cannot listen on this address and port."""


@asynccontextmanager
async def serving(deps: Deps, host: str, port: int) -> AsyncIterator[tuple[int, asyncio.Task[None]]]:
    """Serve while the context is open. Yields the bound port (a free one for 0) and the background task.

    Raises PortUnavailable where the server cannot listen.
    """
    app = make_app(deps)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # a small body must not expand to a large one
        keepalive_timeout=deps.limits.keepalive_s,
        lingering_time=1.0,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        inner = runner.server
        assert inner is not None
        factory: Callable[[], asyncio.Protocol] = inner
        try:
            server = await asyncio.get_running_loop().create_server(
                app[GUARD].factory(factory), host, port, reuse_address=True, backlog=512
            )
        except (OSError, OverflowError) as error:
            raise PortUnavailable(
                f"cannot listen on {host} port {port} ({error}): stop what uses it, or give another --port"
            ) from None
        try:
            yield server.sockets[0].getsockname()[1], app[BACKGROUND]
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def serve(deps: Deps, host: str, port: int, started: Callable[[int], None] = lambda port: None) -> None:
    """Serve until SIGINT or SIGTERM; `started(port)` is called once requests are answered.

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
