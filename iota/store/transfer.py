"""Transfer of objects by presigned URL, without credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import aiohttp

from iota.http import (
    AddressRefused,
    AnswerRefused,
    BodyTooLarge,
    Compressed,
    HttpClient,
    NoAnswer,
    Reach,
    Redirected,
    UploadPace,
    read_bounded,
)
from iota.retry import Backoff
from iota.store.part_urls import PartUrls
from iota.store.parts import PartsPut
from iota.store.ranges import LARGE, Broken, LargeRead, RangeOutside, Renew, total_of
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
MAX_CONNECTIONS = 64
_BACKOFF = Backoff(first_s=0.1, jitter=(1.0, 2.0))  # jitter of at least 1 respects a Retry-After
_SIGNED_FIELDS = "X-Amz-SignedHeaders"
_PROBLEM_BYTES = 2048
"""Bytes of an error's body that go into the message."""

T = TypeVar("T")
Data = bytes | bytearray | memoryview
Read = Callable[[aiohttp.ClientResponse], Awaitable[T]]


class _Retry(Exception):
    """A try failed and another may succeed. `pause_s` is the pause that the server asked for."""

    def __init__(self, why: str, pause_s: float = 0.0) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class ObjectClient:
    """PUT and GET by presigned URL over a pool of connections. Use as an async context manager.

    Connection errors and the statuses 408, 409, 429 and 5xx are retried, up to `MAX_TRIES` tries in total
    and within the deadline; then `StoreUnavailable` is raised.
    """

    def __init__(self, reach: Reach | None = None, pace: UploadPace | None = None) -> None:
        """`reach` is the rule for URLs that an orchestrator names; None for those of a store of one's own."""
        self._http = HttpClient(MAX_CONNECTIONS, None if reach is None else reach.check, pace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def put(self, url: str, data: Data, deadline_s: float) -> bool:
        """Create the object within `deadline_s`. False if it existed, with these or other bytes.

        `If-None-Match` is sent unless the URL is an S3's that does not sign it: some services refuse it.
        An earlier try whose answer was lost may have created it, so the caller must compare its bytes.

        Raises:
            UrlRefused, StoreFull, StoreUnavailable, StoreError
        """
        view = memoryview(data).cast("B")
        headers = {
            **({"If-None-Match": "*"} if _is_conditional(url) else {}),
            "Content-Length": str(view.nbytes),
            "Content-Type": "application/octet-stream",
        }
        try:
            await self.request("PUT", url, deadline_s, _headers_alone, headers=headers, body=view)
        except ObjectExists:
            return False
        return True

    async def put_parts(
        self, urls: PartUrls, data: Data, deadline_s: float, renew: Callable[[], Awaitable[PartUrls]]
    ) -> str:
        """Store an object in parts within `deadline_s`; the name of the upload that is to be completed.

        `renew` replaces URLs that expire meanwhile.

        Raises:
            ObjectMissing: the upload is gone.
            UrlRefused, StoreFull, StoreUnavailable, StoreError
        """

        async def send(url: str, part: memoryview) -> None:
            await self.put(url, part, deadline_s)

        async with _within(deadline_s, "PUT", urls.urls[0]):
            return await PartsPut(send, memoryview(data).cast("B"), urls, renew).put()

    async def get(
        self,
        url: str,
        max_bytes: int,
        deadline_s: float,
        byte_range: tuple[int, int] | None = None,
        *,
        renew: Renew | None = None,
    ) -> bytes:
        """The object's bytes, or those of the half-open `byte_range` (start, stop).

        A range that exceeds the object is cut at its end, as S3 does. What may be large is read in ranges
        side by side; `renew` then replaces a URL that expires meanwhile.

        Raises:
            ObjectTooLarge: if there are more than `max_bytes`, before more than that are in memory.
            ValueError: if the range is empty.
            ObjectMissing, UrlRefused, StoreUnavailable, StoreError
        """
        if byte_range is None and max_bytes > LARGE:
            return await self._get_large(url, max_bytes, deadline_s, renew)
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
            return await read_bounded(response, max_bytes)

        return await self.request("GET", url, deadline_s, read, headers=headers)

    async def _get_large(self, url: str, max_bytes: int, deadline_s: float, renew: Renew | None) -> bytes:
        async with _within(deadline_s, "GET", url) as reasons:

            async def send(at: str, ask: Callable[[], str], read: Read[None]) -> None:
                await self._repeated(
                    "GET", at, reasons, lambda: self._once("GET", at, read, {"Range": ask()}, None)
                )

            return await LargeRead(send, url, max_bytes, renew).read()

    async def size(self, url: str, deadline_s: float) -> int | None:
        """Bytes of the object, of which one byte is read; None if it does not exist.

        By GET, since a server of OpenStack sends a body after its answers to HEAD, which breaks a connection.

        Raises:
            UrlRefused, StoreUnavailable, StoreError
        """
        try:
            return await self.request("GET", url, deadline_s, _size, headers={"Range": "bytes=0-0"})
        except RangeOutside:
            return 0
        except ObjectMissing:
            return None

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
        """Send a request with retries, and return what `read` makes of the successful response."""
        async with _within(deadline_s, method, url) as reasons:
            return await self._repeated(
                method, url, reasons, lambda: self._once(method, url, read, headers or {}, body)
            )

    async def _repeated(
        self, method: str, url: str, reasons: list[str], attempt: Callable[[], Awaitable[T]]
    ) -> T:
        """The result of a try that succeeds, of `MAX_TRIES`; why others failed is added to `reasons`."""
        for tries in range(1, MAX_TRIES + 1):
            try:
                return await attempt()
            except _Retry as failure:
                reasons.append(str(failure))
                if tries < MAX_TRIES:
                    await asyncio.sleep(_BACKOFF.pause_s(tries, failure.pause_s))
        raise StoreUnavailable(f"{method} {_without_query(url)} failed {MAX_TRIES} times: {reasons[-1]}")

    async def _once(
        self,
        method: str,
        url: str,
        read: Read[T],
        headers: Mapping[str, str],
        body: memoryview | None,
    ) -> T:
        try:
            async with self._http.open(method, url, headers=headers, body=body) as response:
                if response.status >= 300:
                    detail = (await response.content.read(_PROBLEM_BYTES)).decode("utf-8", "replace")
                    text = f"{method} {_without_query(url)}: {response.status} {detail}".strip()
                    raise _refusal(response.status, text, _retry_after(response))
                return await read(response)
        except ValueError as error:
            raise UrlRefused(f"{method} {_without_query(url)}: {error}") from error
        except (Redirected, AddressRefused) as error:
            raise UrlRefused(f"{method} {_without_query(url)}: {error}") from error
        except BodyTooLarge as error:
            raise ObjectTooLarge(f"{method} {_without_query(url)}: {error}") from error
        except Compressed as error:
            # A gateway's error page may be compressed: it says nothing of the object.
            raise _refusal(
                error.status, f"{method} {_without_query(url)}: {error.status}, {error}"
            ) from error
        except AnswerRefused as error:
            raise StoreError(f"{method} {_without_query(url)}: {error}") from error
        except (NoAnswer, Broken) as error:
            raise _Retry(str(error)) from error


@asynccontextmanager
async def _within(deadline_s: float, method: str, url: str) -> AsyncIterator[list[str]]:
    """A deadline, and the reasons of failures, of which its error tells the last. Raises StoreUnavailable."""
    reasons = ["no try was made"]
    try:
        async with asyncio.timeout(deadline_s):
            yield reasons
    except TimeoutError:
        raise StoreUnavailable(
            f"{method} {_without_query(url)} did not end within {deadline_s:g} s (last: {reasons[-1]})"
        ) from None


def _is_conditional(url: str) -> bool:
    signed = parse_qs(urlsplit(url).query).get(_SIGNED_FIELDS)
    return signed is None or "if-none-match" in signed[0].split(";")


async def _headers_alone(response: aiohttp.ClientResponse) -> None:
    """A `Read` for answers whose body does not matter."""
    await response.release()


async def _size(response: aiohttp.ClientResponse) -> int:
    """A `Read` for answers to the range of the first byte."""
    await response.release()
    total = total_of(response)
    if total is None:
        raise StoreError("the store does not say how many bytes an object has")
    return total


def _refusal(status: int, text: str, pause_s: float = 0.0) -> StoreError | _Retry:
    """The error of an answer that gives nothing. `pause_s` is the pause that the server asked for."""
    if status == 404:
        return ObjectMissing(text)
    if status == 412:
        return ObjectExists(text)
    if status == 416:
        return RangeOutside(text)
    if status == 507:
        return StoreFull(text)
    # S3 answers one of two concurrent creations with 409, which means try again.
    if status in (408, 409, 429) or status >= 500:
        return _Retry(text, pause_s)
    if status in (401, 403, 410):
        return UrlRefused(text)
    return StoreError(text)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() and len(value) < 6 else 0.0


def _without_query(url: str) -> str:
    # The query is a credential and must not appear in logs.
    return url.partition("?")[0]
