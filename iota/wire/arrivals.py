"""The queue of arrived frames that transports share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from iota.protocol.frames import FrameNotice
from iota.wire.transport import IncomingFrame, TransferRefused


class Arrivals:
    """Frames that a transport has fetched, until `incoming` gives them to its one reader.

    At most `limit` of them wait, since they take memory; 0 is no limit.
    """

    def __init__(self, limit: int) -> None:
        self._queue: asyncio.Queue[IncomingFrame | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(limit) if limit else None
        self._closed = False

    async def put(self, notice: FrameNotice, sender: str, data: bytes) -> None:
        """Add a fetched frame, once there is room. Raises TransferRefused for another size than announced."""
        if len(data) != notice.size:
            raise TransferRefused(f"{len(data)} bytes where {notice.size} were announced")
        await self.pass_on(IncomingFrame(notice, sender, data))

    async def pass_on(self, frame: IncomingFrame) -> None:
        """Add a frame whose size was checked, once there is room; it is dropped after `close`."""
        if self._room is not None:
            await self._room.acquire()
        if self._closed:
            self._free()  # the next one that waits
        else:
            self._queue.put_nowait(frame)

    async def incoming(self) -> AsyncIterator[IncomingFrame]:
        """The frames, in order of arrival, until `close`."""
        while (frame := await self._queue.get()) is not None:
            self._free()
            yield frame

    def close(self) -> None:
        """End `incoming`, also for a reader that waits, and `pass_on`; what has not been read may be lost."""
        self._closed = True
        self._queue.put_nowait(None)
        self._free()

    def _free(self) -> None:
        if self._room is not None:
            self._room.release()
