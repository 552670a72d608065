"""A transport within one process: a frame is stored at its receiver, and no URL is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from iota.protocol.events import Delivered
from iota.protocol.frames import FrameName, FrameNotice
from iota.wire.arrivals import Arrivals
from iota.wire.expectation import EarliestStep, Expects
from iota.wire.transport import IncomingFrame, OutgoingFrame, TransportError, Unreachable


class MemoryTransport:
    """One hotkey's end; `network` holds the ends of all that can be reached."""

    def __init__(self, network: dict[str, MemoryTransport], hotkey: str) -> None:
        self._network = network
        self._stored: dict[FrameName, bytes] = {}
        self._arrivals = Arrivals(0)
        network[hotkey] = self

    def on_event(self, delivered: Delivered) -> None:
        pass

    def listen_for(self, expects: Expects, earliest_step: EarliestStep) -> None:
        pass

    def expectations_changed(self) -> None:
        pass

    async def send(self, frame: OutgoingFrame, to: str) -> FrameNotice:
        if to not in self._network:
            raise Unreachable(f"{to} is away")
        self._network[to]._stored[frame.notice.name] = frame.data
        return frame.notice

    async def store(self, frame: OutgoingFrame) -> FrameNotice:
        raise TransportError("there is no store")

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        data = self._stored.get(notice.name)
        if data is None:
            raise TransportError(f"frame {notice.name} has not come")
        await self._arrivals.put(notice, sender, data)

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        return self._arrivals.incoming()

    async def close(self) -> None:
        self._arrivals.close()
