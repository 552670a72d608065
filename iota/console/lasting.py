"""Says what a process does while that lasts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from iota.console.durations import LINE_EVERY_S, duration

log = logging.getLogger(__name__)


@asynccontextmanager
async def lasting(what: str) -> AsyncIterator[None]:
    """Log `what` at the start of the block, and each `LINE_EVERY_S` that it goes on, with how long it has."""

    async def repeat() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            log.info("still %s, for %s now", what, duration(loop.time() - began))

    log.info("%s", what)
    repeating = asyncio.create_task(repeat(), name=f"lasting: {what}")
    try:
        yield
    finally:
        repeating.cancel()
        await asyncio.wait([repeating])
