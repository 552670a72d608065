"""Behaviour that a miner relies on, of every transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from iota.protocol.frames import FrameNotice
from iota.store import EmbeddedStore, ObjectClient
from iota.wire.store_transport import StoreTransport
from iota.wire.transport import IncomingFrame, TransferRefused, Transport, TransportError, Unreachable
from tests.support.frames import outgoing
from tests.support.memory_transport import MemoryTransport
from tests.support.store_servers import StoreUrls, embedded

RUN = "ab" * 32
ALICE, BOB = "alice", "bob"


@dataclass
class Link:
    """One end each of two members."""

    sender: Transport
    receiver: Transport
    cut: Callable[[], AbstractAsyncContextManager[None]]
    """A context in which the far side is away."""

    async def received(self, notice: FrameNotice) -> IncomingFrame:
        await self.receiver.fetch(notice, ALICE)
        return await anext(self.receiver.incoming())


@asynccontextmanager
async def over_the_store(root: Path) -> AsyncIterator[Link]:
    async with embedded(root) as store, ObjectClient() as objects:
        urls = StoreUrls(store)

        @asynccontextmanager
        async def cut() -> AsyncIterator[None]:
            urls.store = EmbeddedStore("http://127.0.0.1:9", b"0" * 32)
            yield
            urls.store = store

        ends = (StoreTransport(RUN, urls, objects) for _ in range(2))
        yield Link(*ends, cut)


@asynccontextmanager
async def in_memory(root: Path) -> AsyncIterator[Link]:
    network: dict[str, MemoryTransport] = {}
    ends = (MemoryTransport(network, name) for name in (ALICE, BOB))

    @asynccontextmanager
    async def cut() -> AsyncIterator[None]:
        away = network.pop(BOB)
        yield
        network[BOB] = away

    yield Link(*ends, cut)


@pytest.fixture(params=[over_the_store, in_memory], ids=lambda made: made.__name__)
async def link(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Link]:
    async with request.param(tmp_path) as made:
        yield made


async def test_a_frame_arrives_whole_with_its_name_and_sender(link: Link) -> None:
    frame = outgoing(data=bytes(range(256)) * 5000)
    await link.sender.send(frame, BOB)
    assert await link.received(frame.notice) == IncomingFrame(frame.notice, ALICE, frame.data)


async def test_frames_may_be_fetched_in_another_order_than_they_were_sent(link: Link) -> None:
    frames = [outgoing(n, bytes([n]) * (n + 1)) for n in range(4)]
    for frame in frames:
        await link.sender.send(frame, BOB)
    for frame in reversed(frames):
        assert (await link.received(frame.notice)).data == frame.data


async def test_a_frame_can_be_fetched_as_soon_as_its_send_has_returned(link: Link) -> None:
    frame = outgoing()
    with pytest.raises(TransportError):
        await link.receiver.fetch(frame.notice, ALICE)
    await link.sender.send(frame, BOB)
    assert (await link.received(frame.notice)).data == frame.data


async def test_repeats_change_nothing(link: Link) -> None:
    frame = outgoing()
    for _ in range(2):
        await link.sender.send(frame, BOB)
    for _ in range(2):
        assert (await link.received(frame.notice)).data == frame.data


@pytest.mark.parametrize("more", [-1, 1])
async def test_another_size_than_announced_is_refused(link: Link, more: int) -> None:
    frame = outgoing()
    await link.sender.send(frame, BOB)
    wrong = frame.notice.model_copy(update={"size": frame.notice.size + more})
    with pytest.raises(TransferRefused):
        await link.receiver.fetch(wrong, ALICE)


async def test_a_far_side_that_is_away_is_said_to_be_unreachable_until_it_is_back(link: Link) -> None:
    frame = outgoing()
    async with link.cut():
        with pytest.raises(Unreachable):
            await link.sender.send(frame, BOB)
    await link.sender.send(frame, BOB)
    assert (await link.received(frame.notice)).data == frame.data


async def test_closing_ends_the_stream_for_a_reader_that_waits(link: Link) -> None:
    async def read() -> list[IncomingFrame]:
        return [frame async for frame in link.receiver.incoming()]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await link.receiver.close()
    async with asyncio.timeout(5):
        assert await reading == []
