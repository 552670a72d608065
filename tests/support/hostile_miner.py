"""A miner with paced ops that does its work, and is hostile on its links in one way.

The way is its first argument; the miner's own command line follows. It does its worst to the neighbours whose
contacts it has, and its own frames go as they can: what is measured is what that costs the others.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from blake3 import blake3
from yarl import URL

import miner.links
from iota.client import contact_book
from iota.codec.shapes import payload_size
from iota.identity.keys import Hotkey
from iota.protocol.contacts import Contact
from iota.protocol.frames import FrameNotice
from iota.settings.urls import split_host_port
from iota.spec import RunSpec
from iota.wire.direct_link import DirectLink
from iota.wire.direct_server import PATH, serve_frames
from iota.wire.frame import encode_frame, make_header
from iota.wire.link import Door
from iota.wire.transport import IncomingFrame, OutgoingFrame, TransportError
from miner.frames import FrameMover
from miner.links import MinerLinks
from tests.support import hostile_http
from tests.support.frames import frame_name
from tests.support.hostile_http import Answer, hostile
from tests.support.miner_program import run_miner
from tests.support.paced_engine import PacedEngine
from tests.support.paced_miner import PACE as USUAL

ENTRY: Final = "tests.support.hostile_miner:main"
PACE: Final = USUAL.times(4)
"""Slow, so that the swarm leaves most of a shared machine alone."""
PAUSE_S: Final = 0.01
"""Between two attacks of one kind: a flood must not measure what its own sending costs a shared machine."""
TIMES: Final = 20
"""Replays of each frame."""
MOVE_S: Final = 1.0
MOST: Final = 64
"""Offers at a time."""
_Push = Callable[[DirectLink, OutgoingFrame, Contact], Awaitable[bytes]]


def receives(answer: Answer) -> None:
    """Its server answers all requests so."""

    @asynccontextmanager
    async def serve(
        door: Door, max_payload: int, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[int]:
        async with hostile(answer) as server:
            yield URL(server.url).port or 0

    miner.links.serve_frames = serve  # type: ignore[assignment]


async def garbage(writer: asyncio.StreamWriter) -> None:
    """Bytes that are no HTTP."""
    writer.write(bytes(range(256)) * 16)


def floods() -> None:
    """Offers frames of its own for steps that nobody has planned, without end."""

    async def flood(self: MinerLinks) -> None:
        for number in itertools.count():
            await asyncio.sleep(PAUSE_S)
            for contact in _neighbours(self):
                _begin(_offer(self, _made_up(self.spec, self.hotkey, contact.hotkey, number), contact))

    _beside(flood)


def replays() -> None:
    """Pushes each of its frames many times."""

    async def push(honest: _Push, link: DirectLink, frame: OutgoingFrame, peer: Contact) -> bytes:
        answer = await honest(link, frame, peer)
        for _ in range(TIMES):
            with suppress(TransportError):
                await honest(link, frame, peer)
        return answer

    _pushes(push)


def sends_anothers() -> None:
    """Pushes the frames that it receives on to its neighbours."""
    links: list[MinerLinks] = []
    honest = FrameMover.keep

    async def keep(self: FrameMover, arrived: IncomingFrame) -> object:
        frame = OutgoingFrame(arrived.notice, bytes(arrived.data))
        for contact in _neighbours(links[-1]) if links else []:
            _begin(_offer(links[-1], frame, contact))
        return await honest(self, arrived)

    async def remember(self: MinerLinks) -> None:
        links.append(self)

    FrameMover.keep = keep  # type: ignore[assignment]
    _beside(remember)


def resets() -> None:
    """Breaks each push off in the middle of the frame; its frames come by the store."""

    async def push(honest: _Push, link: DirectLink, frame: OutgoingFrame, peer: Contact) -> bytes:
        host, port = split_host_port(peer.direct[0])
        _, writer = await asyncio.open_connection(host, port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(frame.data)}\r\n\r\n".encode())
        writer.write(frame.data[: len(frame.data) // 2])
        await asyncio.sleep(PAUSE_S)
        writer.transport.abort()
        raise TransportError("it breaks its frames off")

    _pushes(push)


def garbles() -> None:
    """Pushes bytes that are no frames, without end."""

    async def garble(self: MinerLinks) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            for contact in _neighbours(self):
                frame = _made_up(self.spec, self.hotkey, contact.hotkey, 0)
                _begin(_offer(self, OutgoingFrame(frame.notice, random.randbytes(len(frame.data))), contact))

    _beside(garble)


def moves() -> None:
    """Its server has another port each second."""
    contact_book.PUBLISH_S = MOVE_S  # type: ignore[misc]
    found: list[MinerLinks] = []

    @asynccontextmanager
    async def serve(
        door: Door, max_payload: int, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[int]:
        async with AsyncExitStack() as servers:
            bound = await servers.enter_async_context(serve_frames(door, max_payload, host, 0, tls))

            async def move() -> None:
                while True:
                    await asyncio.sleep(MOVE_S)
                    await servers.aclose()
                    bound = await servers.enter_async_context(serve_frames(door, max_payload, host, 0, tls))
                    found[-1]._addresses = (f"{host}:{bound}",)

            moving = asyncio.create_task(move())
            yield bound
            moving.cancel()

    async def remember(self: MinerLinks) -> None:
        found.append(self)

    miner.links.serve_frames = serve  # type: ignore[assignment]
    _beside(remember)


WAYS: Final[dict[str, Callable[[], None]]] = {
    "honest": lambda: None,
    "never answers": functools.partial(receives, hostile_http.silence),
    "drips its answer": functools.partial(receives, hostile_http.drip),
    "answers garbage": functools.partial(receives, garbage),
    "floods": floods,
    "sends garbage": garbles,
    "replays": replays,
    "sends another's frames": sends_anothers,
    "resets in mid-frame": resets,
    "changes its address": moves,
}
"""Each way to be hostile."""


def main() -> None:
    """Run the miner that `sys.argv` describes."""
    WAYS[sys.argv.pop(1)]()
    run_miner(make_engine=functools.partial(PacedEngine, pace=PACE))


def _neighbours(links: MinerLinks) -> list[Contact]:
    return [each for each in links.book._known.values() if each.direct and each.hotkey != links.hotkey.ss58]


def _made_up(spec: RunSpec, hotkey: Hotkey, receiver: str, number: int) -> OutgoingFrame:
    payload = bytes(payload_size(spec))
    name = frame_name(50 + number % 1000, number // 1000)
    header = make_header(spec, name, blake3(payload).hexdigest(), hotkey.ss58, receiver)
    data = encode_frame(header, payload, hotkey.sign)
    return OutgoingFrame(FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data)), data)


async def _offer(links: MinerLinks, frame: OutgoingFrame, peer: Contact) -> None:
    if links.direct is not None and len(_TASKS) < MOST:
        with suppress(TransportError):
            await links.direct.push(frame, peer)


def _begin(work: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(work)
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


def _beside(work: Callable[[MinerLinks], Coroutine[None, None, None]]) -> None:
    """Do this beside the miner's own work, once its links are open."""
    honest = MinerLinks.open

    async def opened(self: MinerLinks, stack: AsyncExitStack) -> None:
        await honest(self, stack)
        _begin(work(self))

    MinerLinks.open = opened  # type: ignore[method-assign]


def _pushes(push: Callable[[_Push, DirectLink, OutgoingFrame, Contact], Awaitable[bytes]]) -> None:
    """Replace how frames are pushed over TCP; `push` is given the honest way too."""
    honest = DirectLink.push

    async def replaced(self: DirectLink, frame: OutgoingFrame, peer: Contact) -> bytes:
        return await push(honest, self, frame, peer)

    DirectLink.push = replaced  # type: ignore[method-assign]


_TASKS: set[asyncio.Task[None]] = set()
