"""HTTP client with bounds on an answer's headers, body and time. Redirects and compression are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
from yarl import URL

from iota.http.hosts import proxy_for

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

Body = bytes | AsyncIterator[memoryview] | None


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

    def __init__(self, connections: int = 16) -> None:
        """`connections` is the most that are open at once."""
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

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
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; yields its answer before the body is read. The caller bounds time and body.

        A text is sent as it stands, with its percent-encoding. Raises what `fetch` raises.
        """
        target = URL(url, encoded=True) if isinstance(url, str) else url
        if target.scheme not in ("http", "https") or not target.host:
            raise ValueError("no HTTP URL: it looks like http://HOST:PORT or https://HOST")
        if self._session is None:
            self._session = _open_session(self._connections)
        try:
            async with self._session.request(
                method,
                target,
                headers=headers,
                data=body or None,
                allow_redirects=False,
                proxy=proxy_for(str(target)),
            ) as answer:
                if 300 <= answer.status < 400:
                    raise Redirected(f"it redirects (HTTP {answer.status}), which is not followed")
                if "Content-Encoding" in answer.headers:
                    raise Compressed("it sent a compressed body, which was not asked for")
                yield answer
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise NoAnswer(f"{type(error).__name__}: {error}"[:300]) from error


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


def _open_session(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=IDLE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_FIELD_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        max_headers=MAX_FIELDS,
    )
