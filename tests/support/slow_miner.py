"""A miner whose frames take a random while, each way. Its results must be those of a fast one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Final

from iota.client.run_objects import UrlSource
from iota.protocol.contacts import Contact
from iota.protocol.events import Delivered
from iota.protocol.frames import FrameNotice
from iota.store.transfer import ObjectClient
from iota.wire.expectation import EarliestStep, Expects
from iota.wire.link import Link
from iota.wire.store_transport import StoreTransport
from iota.wire.transport import IncomingFrame, OutgoingFrame, Transport
from miner.links import MinerLinks
from tests.support.miner_program import run_miner

MAX_DELAY_S: Final = 0.15
LATE_S: Final = 1.5
"""Of one frame in eight: long enough for a hedge, so that it arrives twice."""


async def _delay() -> None:
    await asyncio.sleep(LATE_S if random.random() < 1 / 8 else random.uniform(0, MAX_DELAY_S))


class SlowLink:
    """Another link, with a delay before each frame leaves and before its acknowledgement is heard."""

    def __init__(self, inner: Link) -> None:
        self._inner, self.kind = inner, inner.kind

    def reaches(self, peer: Contact) -> bool:
        return self._inner.reaches(peer)

    async def push(self, frame: OutgoingFrame, peer: Contact) -> bytes:
        await _delay()
        acknowledgement = await self._inner.push(frame, peer)
        await _delay()
        return acknowledgement

    async def close(self) -> None:
        await self._inner.close()


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
        await _delay()
        return await self._inner.send(frame, to)

    async def store(self, frame: OutgoingFrame) -> FrameNotice:
        await _delay()
        return await self._inner.store(frame)

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        await _delay()
        await self._inner.fetch(notice, sender)

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        return self._inner.incoming()

    async def close(self) -> None:
        await self._inner.close()


def slow_transport(run: str, urls: UrlSource, store: ObjectClient) -> Transport:
    return SlowTransport(StoreTransport(run, urls, store))


def main() -> None:
    honest = MinerLinks.transport

    def transport(self: MinerLinks, by_store: Transport) -> Transport:
        slow = {kind: SlowLink(link) for kind, link in self.links.items() if not isinstance(link, SlowLink)}
        self.links |= slow
        return honest(self, by_store)

    MinerLinks.transport = transport  # type: ignore[method-assign]
    run_miner(make_transport=slow_transport)
