"""The bound on what a process sends in a second, over every way out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from iota.http import Reach, UploadPace
from iota.http.client import CHUNK
from iota.http.upload_pace import BURST_S
from iota.store import ObjectClient
from iota.wire.direct_link import DirectLink
from iota.wire.direct_server import serve_frames
from iota.wire.link import Link
from tests.support.doors import MemoryDoor
from tests.support.frames import pushed
from tests.support.iroh_links import contact_of, iroh_ends
from tests.support.store_servers import embedded

RATE = 4e6
SIZE = 700_000
Send = Callable[[int], Awaitable[object]]
"""Sends SIZE bytes under a number."""


@asynccontextmanager
async def direct(pace: UploadPace, _root: Path) -> AsyncIterator[Send]:
    async with serve_frames(MemoryDoor(), 1 << 20, "127.0.0.1", 0, None) as port:
        link: Link = DirectLink(Reach(anywhere=True), pace)
        to = contact_of(None).model_copy(update={"direct": (f"127.0.0.1:{port}",)})
        try:
            yield lambda number: link.push(pushed(number, bytes(SIZE)), to)
        finally:
            await link.close()


@asynccontextmanager
async def iroh(pace: UploadPace, _root: Path) -> AsyncIterator[Send]:
    async with iroh_ends(2, pace=pace) as (sender, receiver):
        yield lambda number: sender.link.push(pushed(number, bytes(SIZE)), receiver.contact)


@asynccontextmanager
async def store(pace: UploadPace, root: Path) -> AsyncIterator[Send]:
    async with embedded(root, time.time) as made, ObjectClient(pace=pace) as client:

        async def put(number: int) -> None:
            assert await client.put(made.presign_put(f"a/{number}", SIZE, 60), bytes(SIZE), 30)

        yield put


@pytest.mark.parametrize("way", [direct, iroh, store], ids=lambda way: way.__name__)
async def test_no_way_out_is_faster_than_the_bound(
    way: Callable[[UploadPace, Path], AbstractAsyncContextManager[Send]], tmp_path: Path
) -> None:
    """Two transfers at once share it; the last chunk of each is on its way when its time begins."""
    async with way(UploadPace(RATE), tmp_path) as send:
        began = time.monotonic()
        await asyncio.gather(send(0), send(1))
        took = time.monotonic() - began
    assert took >= (2 * SIZE - CHUNK) / RATE - BURST_S


async def test_what_is_granted_in_any_time_is_bounded() -> None:
    pace, loop, granted = UploadPace(RATE), asyncio.get_running_loop(), []

    async def transfer() -> None:
        for _ in range(10):
            await pace.spend(10_000)
            granted.append(loop.time())

    await asyncio.gather(*(transfer() for _ in range(5)))
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            passed = granted[last] - granted[first]
            assert (last - first) * 10_000 <= RATE * (passed + BURST_S) + 10_000
