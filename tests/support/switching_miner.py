"""A miner whose TCP server closes at SIGUSR1, and opens at another port at SIGUSR2."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import miner.links
from iota.client import contact_book
from iota.wire.direct_server import serve_frames
from iota.wire.link import Door
from miner.links import MinerLinks
from tests.support.miner_program import run_miner

PUBLISH_S = 0.5
"""In place of minutes: a contact changes in a run of seconds."""


def main() -> None:
    contact_book.PUBLISH_S = PUBLISH_S  # type: ignore[misc]
    made: list[MinerLinks] = []
    prepare = MinerLinks.__post_init__

    def remember(self: MinerLinks) -> None:
        prepare(self)
        made.append(self)

    @asynccontextmanager
    async def switched(
        door: Door, max_payload: int, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[int]:
        async with AsyncExitStack() as servers:
            begun = set()

            async def open_elsewhere() -> None:
                bound = await servers.enter_async_context(serve_frames(door, max_payload, host, 0, tls))
                made[-1]._addresses = (f"{host}:{bound}",)

            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, lambda: begun.add(loop.create_task(servers.aclose())))
            loop.add_signal_handler(signal.SIGUSR2, lambda: begun.add(loop.create_task(open_elsewhere())))
            yield await servers.enter_async_context(serve_frames(door, max_payload, host, port, tls))

    MinerLinks.__post_init__ = remember  # type: ignore[method-assign]
    miner.links.serve_frames = switched  # type: ignore[assignment]
    run_miner()
