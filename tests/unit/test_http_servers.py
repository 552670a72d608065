"""What every HTTP server of this project refuses, checked on each over raw sockets."""

from __future__ import annotations

import asyncio
import gzip
import resource
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from iota.chain.ledger import server as ledger_server
from iota.http.server import ConnectionLimits, PortUnavailable, admit, check_port, listening
from iota.identity.peer_certificate import make_certificate
from iota.store import EmbeddedStore
from iota.store.embedded_server import make_app
from tests.support.hostile_http import FLOOD
from tests.support.orchestrators import SECRET, orchestrator

LIMITS = ConnectionLimits(header_s=0.3, keepalive_s=0.3, shutdown_s=0.2)
SIZE = 10_000


@dataclass
class Target:
    """A server, and a request that it would read a body of `SIZE` bytes of."""

    url: str
    method: str
    path: str


@asynccontextmanager
async def store_target(root: Path) -> AsyncIterator[Target]:
    async with listening(make_app(root, SECRET, stall_s=0.3), "127.0.0.1", 0, LIMITS) as url:
        signer = EmbeddedStore(url, SECRET)
        yield Target(url, "PUT", signer.presign_put("a/b", SIZE, 60).removeprefix(url))
        await signer.close()


@asynccontextmanager
async def ledger_target(root: Path) -> AsyncIterator[Target]:
    async with listening(ledger_server.make_app(root / "ledger.db"), "127.0.0.1", 0, LIMITS) as url:
        yield Target(url, "POST", "/v1/register")


@asynccontextmanager
async def orchestrator_target(root: Path) -> AsyncIterator[Target]:
    async with orchestrator(root / "journal", connections=LIMITS, body_s=0.3) as running:
        yield Target(running.url, "POST", "/v1/join")


@pytest.fixture(params=[store_target, ledger_target, orchestrator_target], ids=lambda made: made.__name__)
async def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Target]:
    monkeypatch.setattr("iota.chain.ledger.server._BODY_TIMEOUT_S", 0.3)
    async with request.param(tmp_path) as made:
        yield made


Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def answer_to(target: Target, head: str, send: Send | None = None) -> bytes:
    """What the server answers until it closes the connection, which it must within 5 s."""
    parts = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(head.encode())

    async def sending() -> None:
        with suppress(ConnectionError):
            if send is not None:
                await send(writer)

    task, found = asyncio.create_task(sending()), b""
    async with asyncio.timeout(5):
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                found += part
    task.cancel()
    writer.close()
    return found


def request_head(target: Target, *fields: str) -> str:
    return "\r\n".join([f"{target.method} {target.path} HTTP/1.1", "Host: x", *fields, "", ""])


def flood(piece: bytes) -> Send:
    """Sends `piece` until the connection is closed, or `FLOOD` bytes are sent."""

    async def send(writer: asyncio.StreamWriter) -> None:
        for _ in range(FLOOD // len(piece)):
            writer.write(piece)
            await writer.drain()

    return send


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """No request makes the process, which server and sender share, grow by half of the flood."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < FLOOD >> 11


async def test_a_compressed_body_is_refused_and_never_expanded(target: Target, tmp_path: Path) -> None:
    body = gzip.compress(bytes(FLOOD))[:SIZE]
    head = request_head(target, "Content-Encoding: gzip", f"Content-Length: {SIZE}")

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(body)

    answer = await answer_to(target, head, send)
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b"application/problem+json" in answer
    assert not (tmp_path / "a").exists()


async def test_headers_that_do_not_end_close_the_connection(target: Target) -> None:
    assert await answer_to(target, f"{target.method} {target.path} HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""


@pytest.mark.parametrize("line", [b"X-Field: x\r\n", b"x" * 1024], ids=["fields", "one-field"])
async def test_endless_headers_are_cut_off(
    target: Target, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await answer_to(target, f"{target.method} {target.path} HTTP/1.1\r\nX: ", flood(line * 64))
    assert not answer or answer.split()[1] == b"400"
    assert caplog.text == "", "strangers fill no log"


async def test_a_body_that_drips_is_given_up(target: Target) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    answer = await answer_to(target, request_head(target, f"Content-Length: {SIZE}"), send)
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("length", ["Content-Length: 1099511627776", "Transfer-Encoding: chunked"])
async def test_a_body_beyond_the_bound_is_cut_off(target: Target, length: str, tmp_path: Path) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if "chunked" in length else b"x" * 65536
    answer = await answer_to(target, request_head(target, length), flood(piece))
    assert answer.split()[1] in (b"400", b"411", b"413")
    assert not (tmp_path / "a").exists()


async def test_a_connection_that_idles_is_closed(target: Target) -> None:
    path = "/healthz" if target.method == "PUT" else "/v1/info"
    answer = await answer_to(target, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 ")


async def test_an_address_of_another_machine_is_told_from_a_port_in_use() -> None:
    with pytest.raises(PortUnavailable, match="give an address of this machine"):
        await check_port("203.0.113.7", 0)
    async with listening(web.Application(), "127.0.0.1", 0) as url:
        with pytest.raises(PortUnavailable, match="stop what uses it"):
            await check_port("127.0.0.1", int(url.rpartition(":")[2]))


async def test_connections_take_half_of_the_files_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is for journals, stores and clients."""
    monkeypatch.setattr("iota.http.server.most_open", lambda: 8)
    async with ledger_target(tmp_path) as target, asyncio.timeout(10):
        parts = urlsplit(target.url)
        opened = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(5)]
        *_, (reader, _last) = opened
        with suppress(ConnectionError):
            assert await reader.read() == b""
        opened[0][1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await opened[0][0].readline()).startswith(b"HTTP/1.1 ")
        for _, writer in opened:
            writer.close()


async def _hello(request: web.Request) -> web.Response:
    admit(request)
    return web.Response(text="hello")


async def test_a_request_that_comes_with_the_end_of_a_tls_handshake_is_answered() -> None:
    app = web.Application()
    app.router.add_get("/", _hello)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(incoming, outgoing)
    async with listening(app, "127.0.0.1", 0, LIMITS, make_certificate()[0]) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)

        async def until(step: Callable[[], object]) -> object:
            while True:
                with suppress(ssl.SSLWantReadError):
                    return step()
                writer.write(outgoing.read())
                more = await reader.read(1 << 16)
                assert more, "the server closed the connection"
                incoming.write(more)

        await until(tls.do_handshake)
        tls.write(b"GET / HTTP/1.1\r\nHost: miner\r\n\r\n")  # what ends the handshake is still here
        answer = await until(lambda: tls.read(1 << 16))
        assert isinstance(answer, bytes)
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()
