"""A miner whose frames take a random while, each way. Its results must be those of a fast one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

from iota.client.run_objects import UrlSource
from iota.protocol.events import Delivered
from iota.protocol.frames import FrameNotice
from iota.store.transfer import ObjectClient
from iota.wire.expectation import EarliestStep, Expects
from iota.wire.store_transport import StoreTransport
from iota.wire.transport import IncomingFrame, OutgoingFrame, Transport
from tests.support.miner_program import run_miner

MAX_DELAY_S = 0.15


class SlowTransport:
    """Another transport, with a delay before each frame leaves and before each is fetched."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def on_event(self, delivered: Delivered) -> None:
        self._inner.on_event(delivered)

    def listen_for(self, expects: Expects, earliest_step: EarliestStep) -> None:
        self._inner.listen_for(expects, earliest_step)

    def expectations_changed(self) -> None:
        self._inner.expectations_changed()

    async def send(self, frame: OutgoingFrame, to: str) -> FrameNotice:
        await asyncio.sleep(random.uniform(0, MAX_DELAY_S))
        return await self._inner.send(frame, to)

    async def store(self, frame: OutgoingFrame) -> FrameNotice:
        await asyncio.sleep(random.uniform(0, MAX_DELAY_S))
        return await self._inner.store(frame)

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        await asyncio.sleep(random.uniform(0, MAX_DELAY_S))
        await self._inner.fetch(notice, sender)

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        return self._inner.incoming()

    async def close(self) -> None:
        await self._inner.close()


def slow_transport(run: str, urls: UrlSource, store: ObjectClient) -> Transport:
    return SlowTransport(StoreTransport(run, urls, store))


def main() -> None:
    run_miner(make_transport=slow_transport)
