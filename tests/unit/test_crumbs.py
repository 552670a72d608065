"""Bodies that come in crumbs wake a miner seldom, and lose little time by it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from iota.http.server import listening
from iota.wire.crumbs import Body, BrokeOff, Crumbs


@asynccontextmanager
async def server() -> AsyncIterator[tuple[int, Counter[str], asyncio.Event]]:
    """Yields the port of a server of bodies, what it counts, and whether one broke off."""
    seen: Counter[str] = Counter()
    crumbs, ended = Crumbs(), asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        body, size = Body(request, crumbs), 0
        try:
            while size < (request.content_length or 0):
                size += len(await body.more())
                seen["reads"] += 1
        except BrokeOff:
            seen["broken"] += 1
            ended.set()
            return web.Response(status=400)
        seen["bytes"] += size
        seen["whole"] += 1
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with listening(app, "127.0.0.1", 0) as url:
        yield int(url.rpartition(":")[2]), seen, ended


async def _drip(port: int, size: int, pause_s: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
    for _ in range(size):
        writer.write(b"x")
        await asyncio.sleep(pause_s)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_bodies_in_crumbs_wake_the_miner_seldom() -> None:
    async with server() as (port, seen, _):
        await asyncio.gather(*(_drip(port, 500, 0.001) for _ in range(20)))
        assert (seen["whole"], seen["bytes"]) == (20, 10_000)
        assert seen["reads"] < 3_000


async def test_a_body_whose_last_crumb_is_there_does_not_rest_again() -> None:
    async with server() as (port, seen, _):
        began = time.monotonic()
        await _drip(port, 20, 0.0)
        assert time.monotonic() - began < 1
        assert seen["whole"] == 1


async def test_a_body_that_breaks_off_while_it_rests_ends() -> None:
    async with server() as (port, seen, ended):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(30):
            writer.write(b"x")
            await asyncio.sleep(0.005)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 5)
        assert seen["broken"] == 1
