"""HTTP client with bounds on an answer's headers, body and time. Redirects and compression are refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, Self

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from iota.http.hosts import proxy_for
from iota.http.names import Names
from iota.http.reach import AddressRefused
from iota.http.upload_pace import UploadPace

CONNECT_S: Final = 10.0
"""Time to open a connection, TLS included."""
READ_S: Final = 60.0
"""Longest pause within an answer."""
IDLE_S: Final = 50.0
"""Time that an unused connection is kept. Servers keep it longer, so that no request meets a closed one."""
MAX_FIELD_BYTES: Final = 8190
"""Largest status line or header field."""
MAX_FIELDS: Final = 128
"""Most header fields of an answer."""
MAX_INTERIM: Final = 8
"""Informational answers (100 to 199) before an answer: one who sends them for ever takes the event loop."""

CHUNK: Final = 1 << 18
"""Bytes of a large body that are sent at once: flow control works, and the event loop is not held up."""

Body = bytes | memoryview | None
"""A `memoryview` is sent in chunks, at the client's pace."""
OnConnect = Callable[[str | None], None]
"""Given the IP address that a connection is about to be opened to; None where a proxy resolves its name."""


class NoAnswer(Exception):
    """No whole answer came within the limits. The server may have acted on the request."""


class NotSent(NoAnswer):
    """No connection could be opened, so nothing was sent."""


class AnswerRefused(Exception):
    """An answer of a form that no server of this project gives. The server may have acted on the request."""


class Redirected(AnswerRefused):
    """The answer is a redirect. It is not followed, since requests are signed for one target."""


class Compressed(AnswerRefused):
    """The body is compressed, which was not asked for: its size would not bound the bytes in memory."""

    def __init__(self, status: int) -> None:
        """`status` is the answer's."""
        super().__init__("it sent a compressed body, which was not asked for")
        self.status = status


class BodyTooLarge(AnswerRefused):
    """The body is larger than the caller's bound."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; its status may be any but a redirect."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """A pool of connections, opened at first use in the event loop that then owns it.

    Requests go through the proxy that `iota.http.hosts` names. No cookie is kept and no password is taken
    from a netrc file.
    """

    def __init__(
        self, connections: int = 16, on_connect: OnConnect | None = None, pace: UploadPace | None = None
    ) -> None:
        """`connections` is the most that are open at once. `on_connect` may raise AddressRefused."""
        self._connections = connections
        self._on_connect = on_connect
        self._pace = pace or UploadPace(None)
        self._direct: aiohttp.ClientSession | None = None
        self._proxied: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        for session in (self._direct, self._proxied):
            if session is not None:
                await session.close()
        self._direct = self._proxied = None

    async def fetch(
        self,
        method: str,
        url: str | URL,
        *,
        max_bytes: int,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
    ) -> Answer:
        """One request and its whole answer, of at most `max_bytes`, within `timeout_s`.

        Raises:
            ValueError: the URL is no HTTP URL, or the proxy's is of another kind.
            NotSent, NoAnswer, AnswerRefused
            AddressRefused: `on_connect` refuses the address.
        """
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.open(method, url, headers=headers, body=body) as answer,
            ):
                return Answer(answer.status, answer.headers, await read_bounded(answer, max_bytes))
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout_s:g} s") from None

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        certificate: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; yields its answer before the body is read. The caller bounds time and body.

        A text is sent as it stands, with its percent-encoding. `certificate` is the SHA-256 (hex) of the one
        that the server must show; without it an authority must vouch for it. Raises what `fetch` raises.
        """
        target = URL(url, encoded=True) if isinstance(url, str) else url
        if target.scheme not in ("http", "https") or not target.host:
            raise ValueError("no HTTP URL: it looks like http://HOST:PORT or https://HOST")
        proxy = proxy_for(str(target))
        try:
            async with self._session(target.host, proxy).request(
                method,
                target,
                headers=headers,
                data=self._chunks(body) if isinstance(body, memoryview) else body or None,
                allow_redirects=False,
                proxy=proxy,
                ssl=True if certificate is None else _pinned(certificate),
            ) as answer:
                if 300 <= answer.status < 400:
                    raise Redirected(f"it redirects (HTTP {answer.status}), which is not followed")
                if "Content-Encoding" in answer.headers:
                    raise Compressed(answer.status)
                yield answer
        except AddressRefused:
            raise
        except aiohttp.InvalidURL as error:
            raise ValueError(f"no HTTP URL: {error}") from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if isinstance(error.__cause__, AddressRefused):
                raise error.__cause__ from None
            raise NotSent(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise NoAnswer(f"{type(error).__name__}: {error}"[:300]) from error

    async def _chunks(self, body: memoryview) -> AsyncIterator[memoryview]:
        for start in range(0, body.nbytes, CHUNK):
            chunk = body[start : start + CHUNK]
            await self._pace.spend(chunk.nbytes)
            yield chunk

    def _session(self, host: str, proxy: str | None) -> aiohttp.ClientSession:
        """The session for a direct connection to `host`, whose sockets are watched, or for one by a proxy."""
        if proxy is None:
            self._direct = self._direct or _open_session(self._connections, self._on_connect)
            return self._direct
        if self._on_connect is not None:
            self._on_connect(_address(host))
        self._proxied = self._proxied or _open_session(self._connections, None)
        return self._proxied


async def read_bounded(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body. Raises BodyTooLarge, before more than `max_bytes` are in memory."""
    announced = answer.content_length
    if announced is not None and announced > max_bytes:
        raise BodyTooLarge(f"{announced} bytes were announced where at most {max_bytes} may come")
    body = bytearray()
    async for chunk in answer.content.iter_any():
        if len(body) + len(chunk) > max_bytes:
            raise BodyTooLarge(f"more than the {max_bytes} bytes expected came")
        body += chunk
    return bytes(body)


async def lines(answer: aiohttp.ClientResponse, max_bytes: int) -> AsyncIterator[bytes]:
    """The body line by line, as it arrives. Raises BodyTooLarge for a line of more than `max_bytes`."""
    line = bytearray()
    async for chunk in answer.content.iter_any():
        for piece in chunk.splitlines(keepends=True):
            line += piece
            if len(line) > max_bytes:
                raise BodyTooLarge(f"a line of more than {max_bytes} bytes came")
            if line.endswith(b"\n"):
                yield bytes(line)
                line.clear()
    if line:
        yield bytes(line)


class _Response(aiohttp.ClientResponse):
    """An answer before which few informational ones may come."""

    async def start(self, connection: Connection) -> Self:
        protocol, left = connection.protocol, MAX_INTERIM + 1
        assert protocol is not None
        read = protocol.read

        async def counted() -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise HttpProcessingError(code=400, message="informational answers without end")
            return await read()

        protocol.read = counted  # type: ignore[method-assign]  # aiohttp has no bound of its own
        try:
            await super().start(connection)
        finally:
            del protocol.read
        return self


def _address(host: str) -> str | None:
    """`host` if it is an IP address in a form that the system takes (also 127.1 or 2130706433), else None."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return None
    return str(found[0][4][0])


@lru_cache(maxsize=1024)
def _pinned(certificate: str) -> aiohttp.Fingerprint:
    # One object for each: connections are kept by it, and it equals itself alone.
    return aiohttp.Fingerprint(bytes.fromhex(certificate))


def socket_to(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for a connection to `address`.

    On the internet BBR controls its congestion, where the system has it and lets this process choose it.
    Others, such as Linux's cubic, take each lost packet for a full line: with half a percent of loss and
    round trips of 40 ms one of their connections carries 5 Mbit/s (Mathis et al., 1997). BBR sends at a pace,
    which holds up lines as fast as loopback.
    """
    family, kind, protocol, _, place = address
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_CONGESTION") and ip_address(str(place[0]).partition("%")[0]).is_global:
        with suppress(OSError):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    return made


def _open_session(connections: int, on_connect: OnConnect | None) -> aiohttp.ClientSession:
    def make_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        if on_connect is not None:
            on_connect(str(address[4][0]))
        return socket_to(address)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections, keepalive_timeout=IDLE_S, socket_factory=make_socket, resolver=Names()
        ),
        response_class=_Response,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_FIELD_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        max_headers=MAX_FIELDS,
    )
