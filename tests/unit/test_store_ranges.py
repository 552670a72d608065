"""Large objects are read in ranges side by side, each repeated and resumed by itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from iota.store import ObjectClient, ObjectTooLarge, StoreError, StoreUnavailable, UrlRefused
from tests.support.store_servers import serving

RANGE = 4096
DATA = random.Random(7).randbytes(20 * RANGE + 77)
SHORT_S = 20.0


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iota.store.ranges.RANGE", RANGE)
    monkeypatch.setattr("iota.store.transfer.LARGE", RANGE)


class Server:
    """Serves `data` by ranges. `breaks` times a connection breaks after `cut` bytes of a range."""

    def __init__(self, data: bytes = DATA, *, cut: int = 0, breaks: int = 0) -> None:
        self.data, self.cut, self.breaks = data, cut, breaks
        self.asked: list[tuple[int, int]] = []
        self.refused: set[str] = set()
        """URLs' queries that have expired."""
        self.expires_after: int | None = None
        self.open = self.most_open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.query_string in self.refused:
            return web.Response(status=403)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._answer(request)
        finally:
            self.open -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = request.http_range
        start, stop = asked.start or 0, min(asked.stop or len(self.data), len(self.data))
        if start >= len(self.data):
            return web.Response(status=416)
        self.asked.append((start, stop))
        if self.expires_after is not None and len(self.asked) > self.expires_after:
            self.expires_after = None
            self.refused.add(request.query_string)
            return web.Response(status=403)
        await asyncio.sleep(0)
        answer = web.StreamResponse(status=206)
        answer.content_length = stop - start
        answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(self.data)}"
        await answer.prepare(request)
        if self.breaks > 0 and start > 0:
            self.breaks -= 1
            await answer.write(self.data[start : start + self.cut])
            assert request.transport is not None
            request.transport.close()
            return answer
        await answer.write(self.data[start:stop])
        return answer


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[tuple[ObjectClient, str]]:
    app = web.Application()
    app.router.add_get("/o", server.answer)
    async with serving(app) as url, ObjectClient() as client:
        yield client, f"{url}/o"


async def test_an_object_is_read_once_in_ranges_four_at_a_time() -> None:
    server = Server()
    async with served(server) as (client, url):
        assert await client.get(url, len(DATA), SHORT_S) == DATA
    assert sorted(server.asked) == [(at, min(at + RANGE, len(DATA))) for at in range(0, len(DATA), RANGE)]
    assert 1 < server.most_open <= 4


@pytest.mark.parametrize("size", [0, 1, RANGE - 1, RANGE, RANGE + 1, 2 * RANGE])
async def test_every_size_is_read(size: int) -> None:
    server = Server(DATA[:size])
    async with served(server) as (client, url):
        assert await client.get(url, len(DATA), SHORT_S) == DATA[:size]


async def test_a_range_that_breaks_goes_on_where_it_broke() -> None:
    server = Server(cut=1000, breaks=3)
    async with served(server) as (client, url):
        assert await client.get(url, len(DATA), SHORT_S) == DATA
    resumed = [(start, stop) for start, stop in server.asked if start % RANGE]
    assert {start % RANGE for start, _ in resumed} <= {1000, 2000, 3000}
    assert len(resumed) == 3


async def test_ranges_that_always_break_are_given_up() -> None:
    server = Server(cut=0, breaks=10_000)
    async with served(server) as (client, url):
        with pytest.raises(StoreUnavailable, match="failed 4 times"):
            await client.get(url, len(DATA), SHORT_S)


async def test_a_larger_object_than_allowed_is_refused_after_one_range() -> None:
    server = Server()
    async with served(server) as (client, url):
        with pytest.raises(ObjectTooLarge):
            await client.get(url, len(DATA) - 1, SHORT_S)
    assert len(server.asked) == 1


async def test_a_url_that_expires_meanwhile_is_replaced_and_nothing_is_read_twice() -> None:
    server, renewed = Server(), []

    async def renew() -> str:
        renewed.append(1)
        return f"{url}?again"

    server.expires_after = 9
    async with served(server) as (client, url):
        assert await client.get(url, len(DATA), SHORT_S, renew=renew) == DATA
        assert len(renewed) == 1
        server.refused |= {"", "again"}
        with pytest.raises(UrlRefused):
            await client.get(url, len(DATA), SHORT_S)


async def test_an_object_that_changes_its_size_meanwhile_is_no_object() -> None:
    server = Server()

    async def shrink(request: web.Request) -> web.StreamResponse:
        answer = await server.answer(request)
        server.data = DATA[: 2 * RANGE]
        return answer

    app = web.Application()
    app.router.add_get("/o", shrink)
    async with serving(app) as url, ObjectClient() as client:
        with pytest.raises(StoreError):
            await client.get(f"{url}/o", len(DATA), SHORT_S)


@pytest.mark.parametrize("size", [RANGE, RANGE + 1])
async def test_a_store_that_knows_no_ranges_can_give_small_objects_alone(size: int) -> None:
    async def whole(request: web.Request) -> web.Response:
        return web.Response(body=DATA[:size])

    app = web.Application()
    app.router.add_get("/o", whole)
    async with serving(app) as url, ObjectClient() as client:
        if size > RANGE:
            with pytest.raises(StoreError, match="ignored the Range header"):
                await client.get(f"{url}/o", len(DATA), SHORT_S)
        else:
            assert await client.get(f"{url}/o", len(DATA), SHORT_S) == DATA[:size]
