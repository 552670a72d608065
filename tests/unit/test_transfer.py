"""`ObjectClient` against servers that misbehave: what it retries, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from iota.store import (
    OUTAGES,
    ObjectClient,
    ObjectTooLarge,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UrlRefused,
)
from iota.store.transfer import MAX_TRIES
from tests.support.store_servers import serving

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Script:
    """A server that answers its n-th request by the n-th handler, and the rest by the last."""

    def __init__(self, *handlers: Handler) -> None:
        self._handlers = handlers
        self.seen = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        handler = self._handlers[min(self.seen, len(self._handlers) - 1)]
        self.seen += 1
        return await handler(request)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app


def status(code: int, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(
            status=code, text="why", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return handle


def body(data: bytes, code: int = 200) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, body=data)

    return handle


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def cut_short(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"x" * 50)
    assert request.transport is not None
    request.transport.close()
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


@pytest.fixture
async def client() -> AsyncIterator[ObjectClient]:
    async with ObjectClient() as opened:
        yield opened


@pytest.mark.parametrize("fault", [hang_up, cut_short, status(500), status(503), status(429), status(409)])
async def test_a_passing_fault_is_retried(client: ObjectClient, fault: Handler) -> None:
    script = Script(fault, body(b"good"))
    async with serving(script.app()) as url:
        assert await client.get(f"{url}/k", 100, 20) == b"good"
    assert script.seen == 2


async def test_a_lasting_fault_ends_after_a_few_tries(client: ObjectClient) -> None:
    script = Script(status(500))
    async with serving(script.app()) as url:
        with pytest.raises(StoreUnavailable, match="why"):
            await client.put(f"{url}/k", b"data", 30)
    assert script.seen == MAX_TRIES


async def test_a_server_that_never_answers_ends_at_the_deadline(client: ObjectClient) -> None:
    async with serving(Script(never).app(), shutdown_timeout=0.1) as url:
        with pytest.raises(StoreUnavailable, match=r"0\.2 s"):
            await client.get(f"{url}/k", 100, 0.2)


async def test_a_pause_the_server_asks_for_does_not_pass_the_deadline(client: ObjectClient) -> None:
    script = Script(status(503, Retry_After="3600"))
    async with serving(script.app()) as url:
        with pytest.raises(StoreUnavailable, match="503"):
            await client.get(f"{url}/k", 100, 0.2)
    assert script.seen == 1


@pytest.mark.parametrize(
    ("code", "error"),
    [(403, UrlRefused), (302, UrlRefused), (507, StoreFull), (400, StoreError), (416, StoreError)],
)
async def test_a_refusal_is_final(client: ObjectClient, code: int, error: type[StoreError]) -> None:
    script = Script(status(code, Location="/elsewhere"))
    async with serving(script.app()) as url:
        with pytest.raises(error, match=r"why|redirects"):
            await client.put(f"{url}/k", b"data", 20)
    assert script.seen == 1


async def test_a_put_retried_after_a_lost_answer_counts_as_stored(client: ObjectClient) -> None:
    stored: list[bytes] = []

    async def store_and_hang_up(request: web.Request) -> web.StreamResponse:
        stored.append(await request.read())
        return await hang_up(request)

    script = Script(store_and_hang_up, status(412))
    async with serving(script.app()) as url:
        await client.put(f"{url}/k", b"data", 20)
    assert stored == [b"data"]
    assert script.seen == 2


async def test_a_put_says_its_size_and_that_it_creates(client: ObjectClient) -> None:
    seen: dict[str, str | None] = {}
    got: list[bytes] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        for name in ("Content-Length", "If-None-Match", "Transfer-Encoding", "Content-Encoding"):
            seen[name] = request.headers.get(name)
        got.append(await request.read())
        return web.Response(status=201)

    data = bytearray(range(256)) * 5000
    async with serving(Script(handle).app()) as url:
        await client.put(f"{url}/k", data, 20)
    assert seen == {
        "Content-Length": "1280000",
        "If-None-Match": "*",
        "Transfer-Encoding": None,
        "Content-Encoding": None,
    }
    assert got == [bytes(data)]


async def test_a_url_is_sent_as_it_was_signed(client: ObjectClient) -> None:
    seen: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.raw_path)
        return web.Response(body=b"")

    async with serving(Script(handle).app()) as url:
        await client.get(f"{url}/a%2Fb?X-Amz-Credential=a%2Fb%3Bc&x=%7E", 10, 20)
    assert seen == ["/a%2Fb?X-Amz-Credential=a%2Fb%3Bc&x=%7E"]


@pytest.mark.parametrize(("code", "error"), [(200, StoreError), (404, None), (503, StoreUnavailable)])
async def test_a_compressed_answer_is_about_the_object_only_where_it_gives_one(
    client: ObjectClient, code: int, error: type[StoreError] | None
) -> None:
    """S3 gives back the Content-Encoding of a PUT; a gateway may compress its error pages."""
    async with serving(Script(status(code, Content_Encoding="gzip")).app()) as url:
        if error is None:
            assert await client.size(f"{url}/k", 20) is None
            return
        with pytest.raises(error, match="compressed") as caught:
            await client.size(f"{url}/k", 20)
        assert isinstance(caught.value, OUTAGES) is (code == 503)


async def test_an_endless_body_is_cut_off_at_the_bound(client: ObjectClient) -> None:
    async with serving(Script(endless).app(), shutdown_timeout=0.1) as url:
        with pytest.raises(ObjectTooLarge):
            await client.get(f"{url}/k", 100_000, 20)


async def test_an_announced_size_beyond_the_bound_is_refused_unread(client: ObjectClient) -> None:
    async def huge(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(1 << 50)})
        await response.prepare(request)
        return await never(request)

    async with serving(Script(huge).app(), shutdown_timeout=0.1) as url:
        with pytest.raises(ObjectTooLarge, match="announced"):
            await client.get(f"{url}/k", 1 << 40, 20)


async def test_a_store_that_ignores_ranges_is_found_out(client: ObjectClient) -> None:
    async with serving(Script(body(b"0123456789")).app()) as url:
        with pytest.raises(StoreError, match="Range"):
            await client.get(f"{url}/k", 100, 20, (2, 4))


async def test_a_compressed_body_is_refused(client: ObjectClient) -> None:
    async def compressed(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    async with serving(Script(compressed).app()) as url:
        with pytest.raises(StoreError, match="compressed"):
            await client.get(f"{url}/k", 100, 20)


async def test_an_error_never_shows_the_urls_signature(client: ObjectClient) -> None:
    async with serving(Script(status(403)).app()) as url:
        with pytest.raises(UrlRefused) as caught:
            await client.get(f"{url}/k?sig=topsecret", 100, 20)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "not a url", ""])
async def test_what_is_no_http_url_is_refused(client: ObjectClient, url: str) -> None:
    with pytest.raises(UrlRefused):
        await client.get(url, 10, 5)
