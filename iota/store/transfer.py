"""Moving one object by a presigned URL, without credentials: what every node uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from yarl import URL

from iota.retry import Backoff
from iota.store.store import (
    ObjectExists,
    ObjectMissing,
    ObjectTooLarge,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UrlRefused,
)

MAX_TRIES = 4
_BACKOFF = Backoff(first_s=0.1, jitter=(1.0, 2.0))  # never less than a Retry-After
_CHUNK = 1 << 18
_PROBLEM_BYTES = 2048

T = TypeVar("T")
Data = bytes | bytearray | memoryview
Read = Callable[[aiohttp.ClientResponse], Awaitable[T]]


class _Retry(Exception):
    """A try failed in a way that another one may mend; `pause_s` is what the server asked for."""

    def __init__(self, why: str, pause_s: float = 0.0) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class ObjectClient:
    """PUT and GET by presigned URL over one set of kept-alive connections.

    Use as an async context manager. Connection errors, 429 and 5xx are tried again, at most
    `MAX_TRIES` times within the deadline, after which `StoreUnavailable` is raised.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Compressed answers are refused: sizes must mean what they say before a byte is read.
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=50),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def put(self, url: str, data: Data, deadline_s: float) -> None:
        """Store `data` within `deadline_s`; an object that is there already counts as stored.

        Raises:
            UrlRefused, StoreFull, StoreUnavailable, StoreError
        """
        await self.create(url, data, deadline_s)

    async def create(self, url: str, data: Data, deadline_s: float) -> bool:
        """Like `put`; False if an object had been there (perhaps from a try whose answer was lost)."""
        view = memoryview(data).cast("B")
        headers = {
            "If-None-Match": "*",
            "Content-Length": str(view.nbytes),
            "Content-Type": "application/octet-stream",
        }
        try:
            await self.request("PUT", url, deadline_s, _nothing, headers=headers, body=view)
        except ObjectExists:
            return False
        return True

    async def get(
        self, url: str, max_bytes: int, deadline_s: float, byte_range: tuple[int, int] | None = None
    ) -> bytes:
        """The object's bytes, or those of the half-open `byte_range` (start, stop).

        A range that passes the object's end yields what there is, as S3 does.

        Raises:
            ObjectTooLarge: before anything is allocated, if more than `max_bytes` were to come.
            ObjectMissing, UrlRefused, StoreUnavailable, StoreError
        """
        headers: dict[str, str] = {}
        if byte_range is not None:
            start, stop = byte_range
            if not 0 <= start < stop:
                raise ValueError(f"byte range {start}..{stop} is empty: give 0 <= start < stop")
            headers["Range"] = f"bytes={start}-{stop - 1}"
            max_bytes = min(max_bytes, stop - start)

        async def read(response: aiohttp.ClientResponse) -> bytes:
            if byte_range is not None and response.status != 206:
                raise StoreError("the store ignored the Range header: it cannot serve parts of an object")
            return await _read_bounded(response, max_bytes)

        return await self.request("GET", url, deadline_s, read, headers=headers)

    async def request(
        self,
        method: str,
        url: str,
        deadline_s: float,
        read: Read[T],
        *,
        headers: Mapping[str, str] | None = None,
        body: memoryview | None = None,
    ) -> T:
        """Send one request with bounded retries and give its successful response to `read`."""
        if self._session is None:
            raise RuntimeError("ObjectClient is used outside its 'async with' block")
        why = "no try was made"
        try:
            async with asyncio.timeout(deadline_s):
                for tries in range(1, MAX_TRIES + 1):
                    try:
                        return await self._once(self._session, method, url, read, headers or {}, body)
                    except _Retry as failure:
                        why = str(failure)
                        if tries < MAX_TRIES:
                            await asyncio.sleep(_BACKOFF.pause_s(tries, failure.pause_s))
        except TimeoutError:
            raise StoreUnavailable(
                f"{method} {_shown(url)} did not end within {deadline_s:g} s (last: {why})"
            ) from None
        raise StoreUnavailable(f"{method} {_shown(url)} failed {MAX_TRIES} times: {why}")

    async def _once(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        read: Read[T],
        headers: Mapping[str, str],
        body: memoryview | None,
    ) -> T:
        # `encoded=True` sends the URL as it was signed; redirects would lead away from what was signed.
        try:
            async with session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=None if body is None else _chunks(body),
                allow_redirects=False,
            ) as response:
                if response.status >= 300:
                    await _raise_for(response, method, url)
                return await read(response)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise UrlRefused(f"{_shown(url)} is no HTTP URL") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _Retry(f"{type(error).__name__}: {error}") from error


async def _nothing(response: aiohttp.ClientResponse) -> None:
    await response.release()


async def _chunks(view: memoryview) -> AsyncIterator[memoryview]:
    # Pieces let the transport's flow control work and keep a large body from blocking the loop.
    for start in range(0, view.nbytes, _CHUNK):
        yield view[start : start + _CHUNK]


async def _read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    announced = response.content_length
    if announced is not None and announced > max_bytes:
        raise ObjectTooLarge(f"{announced} bytes were announced where at most {max_bytes} may come")
    if "Content-Encoding" in response.headers:
        raise StoreError("the store sent a compressed body, which was not asked for")
    parts = bytearray()
    async for chunk in response.content.iter_any():
        if len(parts) + len(chunk) > max_bytes:
            raise ObjectTooLarge(f"more than the {max_bytes} bytes expected came")
        parts += chunk
    return bytes(parts)


async def _raise_for(response: aiohttp.ClientResponse, method: str, url: str) -> None:
    status = response.status
    detail = (await response.content.read(_PROBLEM_BYTES)).decode("utf-8", "replace")
    text = f"{method} {_shown(url)}: {status} {detail}".strip()
    if status == 404:
        raise ObjectMissing(text)
    if status == 412:
        raise ObjectExists(text)
    if status == 507:
        raise StoreFull(text)
    # S3 answers 409 to one of two concurrent creations and asks for another try.
    if status in (408, 409, 429) or status >= 500:
        raise _Retry(text, _retry_after(response))
    if status in (401, 403, 410) or status < 400:
        raise UrlRefused(text)
    raise StoreError(text)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() and len(value) < 6 else 0.0


def _shown(url: str) -> str:
    # The query is a credential; logs get the rest.
    return url.partition("?")[0]
