"""Reads bodies so that those that come in crumbs wake the miner seldom, however many there are.

Each wake-up costs as much for a byte as for 64 kB. So a body that has come in crumbs for a while rests
between reads, and more collects in the kernel: 10 ms where it is alone, and longer the more there are. All of
them together wake the miner no more than `_READS_PER_S` times a second.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

CRUMB: Final = 4096
"""Bytes; a read of fewer is one of crumbs."""
_FREE: Final = 8
"""Crumbs in a row before a body rests: the packets in which a fast one begins and ends."""
_READS_PER_S: Final = 500
"""Some 5 % of a core."""
_LEAST_S: Final = 0.01


class BrokeOff(Exception):
    """The peer does not send the rest of a body."""


class Crumbs:
    """The bodies of one server that rest."""

    def __init__(self) -> None:
        self._resting = 0

    async def rest(self, transport: asyncio.BaseTransport | None) -> None:
        """Leave what comes to the kernel for a while."""
        self._resting += 1
        reads = transport if isinstance(transport, asyncio.ReadTransport) else None
        try:
            if reads is not None:
                reads.pause_reading()
            await asyncio.sleep(max(_LEAST_S, self._resting / _READS_PER_S))
        finally:
            self._resting -= 1
            if reads is not None:
                reads.resume_reading()


class Body:
    """The body of one request."""

    def __init__(self, request: web.Request, crumbs: Crumbs) -> None:
        self._request, self._crumbs = request, crumbs
        self._in_a_row = 0

    async def more(self) -> bytes:
        """Its next bytes, which aiohttp ends at the announced length. Raises BrokeOff."""
        if self._in_a_row > _FREE:
            await self._crumbs.rest(self._request.transport)
        try:
            chunk = await self._request.content.readany()
        except (web.RequestPayloadError, ConnectionError):
            raise BrokeOff from None
        if not chunk:
            raise BrokeOff
        self._in_a_row = self._in_a_row + 1 if len(chunk) < CRUMB else 0
        return chunk
