"""HTTP server with bounds on headers, bodies, connections and time, for every server of this project."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from iota.http.client import MAX_FIELD_BYTES, MAX_FIELDS
from iota.http.connections import ConnectionGuard
from iota.system.open_files import most_open

LINGER_S: Final = 1.0
"""After a refusal: time for the sender of a body to read it before the connection is closed."""
_log = logging.getLogger(__name__)
# aiohttp logs a traceback for each malformed request, so that anyone could fill the log.
_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
_GUARD: Final = web.AppKey("guard", ConnectionGuard)


class PortUnavailable(ValueError):
    """The server cannot listen on this address and port."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits that apply before a request is understood."""

    header_s: float = 10.0
    """Time from a connection's opening to the end of its first request's headers."""
    keepalive_s: float = 75.0
    """Time that a connection may be idle (or half-way through headers) between requests."""
    connections: int = 256
    """Open connections of one address (of IPv6 one /64 network); loopback is exempt."""
    rate: float | None = None
    """New connections a second of one address, beyond `connections` at once; loopback is exempt."""
    total: int = 1 << 16
    """Open connections of all addresses, and no more than half of the files that this process may open."""
    fields: int = MAX_FIELDS
    """Header fields of a request."""
    field_bytes: int = MAX_FIELD_BYTES
    """Largest request line or header field. Headers that never end hold `fields` times as much."""
    shutdown_s: float = 10.0
    """Longest wait for open requests at shutdown."""


@asynccontextmanager
async def listening(
    app: web.Application,
    host: str,
    port: int,
    limits: ConnectionLimits = ConnectionLimits(),
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serve `app` while the context is open. Yields the base URL, with the port that was bound if it was 0.

    With `tls` it speaks HTTPS. The app's outermost middleware must call `admit` first.

    Raises:
        PortUnavailable: the server cannot listen.
    """
    total = min(limits.total, most_open() // 2)
    guard = app[_GUARD] = ConnectionGuard(limits.header_s, limits.connections, total, limits.rate)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_log,
        auto_decompress=False,  # a small body must not expand to a large one
        keepalive_timeout=limits.keepalive_s,
        lingering_time=LINGER_S,
        shutdown_timeout=limits.shutdown_s,
        max_line_size=limits.field_bytes,
        max_field_size=limits.field_bytes,
        max_headers=limits.fields,
    )
    await runner.setup()
    try:
        inner: Callable[[], asyncio.Protocol] | None = runner.server
        assert inner is not None
        server = await _listen(guard.factory(inner, tls), host, port)
        try:
            bound = server.sockets[0].getsockname()
            yield f"http{'s' if tls else ''}://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def check_port(host: str, port: int) -> None:
    """Raise PortUnavailable unless a server can listen here now, before anything is made for it."""
    (await _listen(asyncio.Protocol, host, port)).close()


async def _listen(factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            factory, host, port, reuse_address=True, backlog=1024
        )
    except (OSError, OverflowError) as error:
        remedy = "stop what uses it, or give another --port (a miner: --listen)"
        if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
            remedy = "give an address of this machine, or 0.0.0.0 for all of them"
        raise PortUnavailable(f"cannot listen on {host} port {port} ({error}): {remedy}") from None


def admit(request: web.Request) -> None:
    """Note that a request's headers are complete, and refuse a compressed body.

    Raises HTTPUnsupportedMediaType: a compressed body's size would not bound what it expands to, and its
    signature covers other bytes than a handler reads.
    """
    guard = request.app.get(_GUARD)
    if guard is not None:
        guard.request_begun(request.transport)
    if "Content-Encoding" in request.headers:
        raise _closing(
            web.HTTPUnsupportedMediaType(text="send the body uncompressed, without Content-Encoding")
        )


async def read_body(request: web.Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body.

    Raises:
        HTTPRequestEntityTooLarge: it is larger than `max_bytes`; no more than that was read.
        HTTPRequestTimeout: it did not arrive within `timeout_s`.
        HTTPBadRequest: it broke off.
    """
    announced = request.content_length or 0
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            if announced > max_bytes:
                raise _too_large(max_bytes, announced)
            async for part in request.content.iter_any():
                if len(body) + len(part) > max_bytes:
                    raise _too_large(max_bytes, len(body) + len(part))
                body += part
    except TimeoutError:
        raise _closing(
            web.HTTPRequestTimeout(text=f"the body did not arrive within {timeout_s:g} s")
        ) from None
    except (web.RequestPayloadError, ConnectionError):
        raise web.HTTPBadRequest(text="the body broke off") from None
    return bytes(body)


def problem_of(error: web.HTTPException, answer: web.Response) -> web.Response:
    """`answer` in place of `error`: it closes the connection if the rest of the request was not read."""
    if error.keep_alive is False:
        answer.force_close()
    return answer


def _too_large(max_bytes: int, size: int) -> web.HTTPException:
    text = f"a body here has at most {max_bytes} bytes"
    return _closing(web.HTTPRequestEntityTooLarge(max_bytes, size, text=text))


def _closing(error: web.HTTPException) -> web.HTTPException:
    """Closes the connection after the refusal, so that the rest of the body need not be read."""
    error.force_close()
    return error
