"""A transport within one process: a frame is stored at its receiver, and no URL is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from iota.protocol.events import Delivered
from iota.protocol.messages import FrameName, FrameNotice
from iota.wire.transport import IncomingFrame, OutgoingFrame, TransferRefused, TransportError, Unreachable


class MemoryTransport:
    """One hotkey's end; `network` holds the ends of all that can be reached."""

    def __init__(self, network: dict[str, MemoryTransport], hotkey: str) -> None:
        self._network = network
        self._stored: dict[FrameName, bytes] = {}
        self._arrived: asyncio.Queue[IncomingFrame | None] = asyncio.Queue()
        network[hotkey] = self

    def on_event(self, delivered: Delivered) -> None:
        pass

    async def send(self, frame: OutgoingFrame, to: str) -> None:
        if to not in self._network:
            raise Unreachable(f"{to} is away")
        self._network[to]._stored[frame.notice.name] = frame.data

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        data = self._stored.get(notice.name)
        if data is None:
            raise TransportError(f"frame {notice.name} has not come")
        if len(data) != notice.size:
            raise TransferRefused(f"{len(data)} bytes where {notice.size} were announced")
        await self._arrived.put(IncomingFrame(notice, sender, data))

    async def incoming(self) -> AsyncIterator[IncomingFrame]:
        while (frame := await self._arrived.get()) is not None:
            yield frame

    async def close(self) -> None:
        self._arrived.put_nowait(None)
