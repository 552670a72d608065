"""Storing of large objects in parts: side by side, each repeated by itself, by one presigned URL each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from iota.store.part_urls import PartUrls
from iota.store.store import UrlRefused

_AT_ONCE: Final = 4
"""Parts of one object that are sent at once."""


Renew = Callable[[], Awaitable[PartUrls]]
"""Gives URLs anew, of the same upload where it is still there."""
SendPart = Callable[[str, memoryview], Awaitable[object]]
"""Sends one part to its URL, with repeats. Raises StoreError."""


class PartsPut:
    """Sends one object in parts. What has been stored is not sent again, also when URLs have expired."""

    def __init__(self, send: SendPart, data: memoryview, urls: PartUrls, renew: Renew) -> None:
        self._send, self._data, self._renew = send, data, renew
        self._urls = urls
        self._renewing = asyncio.Lock()

    async def put(self) -> str:
        """Store all parts; the name of the upload that is to be completed. Raises StoreError."""
        numbers = iter(range(len(self._urls.urls)))
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_AT_ONCE):
                    tasks.create_task(self._some(numbers))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return self._urls.upload

    async def _some(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._part(number)

    async def _part(self, number: int) -> None:
        """Store one part. A URL that has expired is replaced once."""
        before = self._urls
        start = number * before.part_bytes
        part = self._data[start : start + before.part_bytes]
        try:
            await self._send(before.urls[number], part)
        except UrlRefused:
            async with self._renewing:
                if self._urls is before:
                    renewed = await self._renew()
                    if renewed.upload != before.upload:
                        raise  # what was stored is lost: the whole begins anew
                    self._urls = renewed
            await self._send(self._urls.urls[number], part)
