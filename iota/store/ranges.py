"""Reading of large objects: ranges side by side, each repeated by itself, into one buffer."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import aiohttp

from iota.http import BodyTooLarge, read_bounded
from iota.store.store import ObjectTooLarge, StoreError, UrlRefused

LARGE: Final = 64 << 20
"""An object of at most so many bytes is read by one request."""
RANGE: Final = 16 << 20
"""Bytes of one range. One that breaks is resumed where it broke."""
_AT_ONCE: Final = 4
"""Ranges of one object that are read at once."""
_TOTAL: Final = re.compile(r"bytes 0-\d+/(\d+)")

Renew = Callable[[], Awaitable[str]]
"""Gives a new URL of the same object, where the one before has expired."""


class RangeOutside(StoreError):
    """The object ends before the range begins."""


class Broken(Exception):
    """An answer ended early: the rest is to be asked for."""


ReadAnswer = Callable[[aiohttp.ClientResponse], Awaitable[None]]
Send = Callable[[str, Callable[[], str], ReadAnswer], Awaitable[None]]
"""Sends one GET of a URL, with repeats: the text of each try's Range is asked for, each answer is read."""


class LargeRead:
    """One read of an object of at most `max_bytes`, whose size is not known before.

    Memory is the object's size and what the sockets hold.
    """

    def __init__(self, send: Send, url: str, max_bytes: int, renew: Renew | None = None) -> None:
        self._send, self._url, self._max_bytes, self._renew = send, url, max_bytes, renew
        self._renewing = asyncio.Lock()

    async def read(self) -> bytes:
        """The object's bytes. Raises ObjectTooLarge, and what a single GET raises."""
        try:
            head, total = await self._first()
        except RangeOutside:
            return b""  # an empty object has no first range
        if total == len(head):
            return head
        buffer = io.BytesIO()
        buffer.seek(total - 1)
        buffer.write(b"\0")
        with buffer.getbuffer() as view:
            view[: len(head)] = head
            starts = iter(range(len(head), total, RANGE))
            try:
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(_AT_ONCE):
                        tasks.create_task(self._fill(view, starts))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed
        return buffer.getvalue()  # without a copy: nothing else refers to the buffer's bytes

    async def _first(self) -> tuple[bytes, int]:
        """The first range, and the object's size."""
        head, total = b"", 0

        async def read(answer: aiohttp.ClientResponse) -> None:
            nonlocal head, total
            if answer.status != 206:
                head = await _whole(answer, self._max_bytes)
                total = len(head)
                return
            found = total_of(answer)
            if found is None:
                raise StoreError("the store does not say how many bytes an object has")
            total = found
            if total > self._max_bytes:
                raise ObjectTooLarge(f"it has {total} bytes where at most {self._max_bytes} may come")
            head = await read_bounded(answer, RANGE)
            if len(head) != min(total, RANGE):
                raise Broken(f"{len(head)} bytes came of the first range of {total}")

        await self._send(self._url, lambda: f"bytes=0-{RANGE - 1}", read)
        return head, total

    async def _fill(self, view: memoryview, starts: Iterator[int]) -> None:
        for start in starts:
            await self._range(view[start : start + RANGE], start)

    async def _range(self, view: memoryview, start: int) -> None:
        """Fill `view` with the object's bytes from `start` on. A URL that has expired is replaced once."""
        url, part = self._url, _Part(view, start)
        try:
            await self._send(url, part.ask, part.read)
        except UrlRefused:
            if self._renew is None:
                raise
            async with self._renewing:
                if self._url == url:
                    self._url = await self._renew()
            await self._send(self._url, part.ask, part.read)


def total_of(answer: aiohttp.ClientResponse) -> int | None:
    """The size of the object whose first range was asked for; None where the store does not say it."""
    if answer.status != 206:
        return answer.content_length
    found = _TOTAL.fullmatch(answer.headers.get("Content-Range", ""))
    return None if found is None else int(found[1])


class _Part:
    """A range that is being read; what has come is not asked for again."""

    def __init__(self, view: memoryview, start: int) -> None:
        self._view, self._start, self._done = view, start, 0

    def ask(self) -> str:
        return f"bytes={self._start + self._done}-{self._start + len(self._view) - 1}"

    async def read(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status != 206:
            raise _ignored()
        async for chunk in answer.content.iter_any():
            stop = self._done + len(chunk)
            if stop > len(self._view):
                raise BodyTooLarge(f"more than the {len(self._view)} bytes of a range came")
            self._view[self._done : stop] = chunk
            self._done = stop
        if self._done < len(self._view):
            raise Broken(f"{self._done} bytes came of a range of {len(self._view)}")


async def _whole(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """An object that is no longer than a range, so that a store may give it without regard to that."""
    if answer.content_length is not None and answer.content_length > max_bytes:
        raise ObjectTooLarge(
            f"{answer.content_length} bytes were announced where at most {max_bytes} may come"
        )
    if answer.content_length is None or answer.content_length > RANGE:
        raise _ignored()
    return await read_bounded(answer, RANGE)


def _ignored() -> StoreError:
    return StoreError("the store ignored the Range header: it cannot serve parts of an object")
