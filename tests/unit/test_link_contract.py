"""Behaviour that a miner relies on, of every link."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from iota.http import Reach
from iota.identity.peer_certificate import make_certificate
from iota.protocol.contacts import Contact
from iota.wire.direct_link import DirectLink
from iota.wire.direct_server import serve_frames
from iota.wire.link import DoorRefused, Link, Refusal
from iota.wire.transport import TransferRefused, TransportError, Unreachable
from tests.support.doors import MemoryDoor, acknowledgement
from tests.support.frames import pushed
from tests.support.iroh_links import contact_of, iroh_ends


@dataclass
class Member:
    """One end."""

    link: Callable[[], Link]
    """The link that it has now."""
    door: MemoryDoor
    contact: Callable[[], Contact]
    away: Callable[[], AbstractAsyncContextManager[None]]
    """A context in which it is away; after it, it is back at the same address."""
    close: Callable[[], Awaitable[None]]
    """Close all that it has opened."""

    async def push(self, to: Member, microbatch: int = 0, payload: bytes = b"values") -> None:
        """Push a frame, and check that it is there and acknowledged."""
        frame = pushed(microbatch, payload)
        assert await self.link().push(frame, to.contact()) == acknowledgement(frame.data)
        assert frame.data in to.door.kept.values()


@asynccontextmanager
async def over_iroh(_root: Path) -> AsyncIterator[list[Member]]:
    async with iroh_ends(2, silent_s=4.0, dial_s=5.0) as ends:
        yield [
            Member(
                lambda end=end: end.link,
                end.door,
                lambda end=end: end.contact,
                end.away,
                lambda end=end: end.link.close(),
            )
            for end in ends
        ]


class _DirectEnd:
    """One member with a server for frames and a link."""

    def __init__(self, tls: tuple[ssl.SSLContext, str] | tuple[None, None]) -> None:
        self.door, self._tls, self._port = MemoryDoor(), tls, 0
        self.link = DirectLink(Reach(anywhere=True))
        self._server: AsyncExitStack

    async def open(self) -> None:
        self._server = AsyncExitStack()
        serving = serve_frames(self.door, 16 << 20, "127.0.0.1", self._port, self._tls[0])
        self._port = await self._server.enter_async_context(serving)

    def contact(self) -> Contact:
        own = {"direct": (f"127.0.0.1:{self._port}",), "certificate": self._tls[1]}
        return contact_of(None).model_copy(update=own)

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        await self._server.aclose()
        yield
        await self.open()

    async def close(self) -> None:
        await self.link.close()
        await self._server.aclose()

    def member(self) -> Member:
        return Member(lambda: self.link, self.door, self.contact, self.away, self.close)


@asynccontextmanager
async def over_direct(_root: Path, *, tls: bool = False) -> AsyncIterator[list[Member]]:
    ends = [_DirectEnd(make_certificate() if tls else (None, None)) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for end in ends:
            await end.open()
            stack.push_async_callback(end.close)
        yield [end.member() for end in ends]


@asynccontextmanager
async def over_direct_with_tls(root: Path) -> AsyncIterator[list[Member]]:
    async with over_direct(root, tls=True) as members:
        yield members


@pytest.fixture(params=[over_iroh, over_direct, over_direct_with_tls], ids=lambda made: made.__name__)
async def ends(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Member]]:
    async with request.param(tmp_path) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 1000, 262144, 2_200_000, 9_000_001])
async def test_a_frame_arrives_whole_and_is_acknowledged(ends: list[Member], size: int) -> None:
    sender, receiver = ends
    await sender.push(receiver, payload=bytes(range(251)) * (size // 251) + bytes(size % 251))


async def test_a_link_reaches_whom_it_can_dial(ends: list[Member]) -> None:
    sender, receiver = ends
    assert sender.link().reaches(receiver.contact())
    assert not sender.link().reaches(contact_of(None))
    with pytest.raises(Unreachable):
        await sender.link().push(pushed(), contact_of(None))


@pytest.mark.parametrize("way", [over_direct, over_direct_with_tls], ids=lambda made: made.__name__)
async def test_frames_one_after_another_take_one_connection(
    way: Callable[[Path], AbstractAsyncContextManager[list[Member]]], tmp_path: Path
) -> None:
    async with way(tmp_path) as (sender, receiver):
        for microbatch in range(5):
            await sender.push(receiver, microbatch)
        port = int(receiver.contact().direct[0].rpartition(":")[2])
        found = psutil.Process().net_connections("tcp")
        assert len([each for each in found if each.raddr and each.raddr.port == port]) == 1


@pytest.mark.parametrize("why", Refusal)
@pytest.mark.parametrize("size", [10, 9_000_000])
async def test_a_refusal_at_the_door_says_why(ends: list[Member], why: Refusal, size: int) -> None:
    sender, receiver = ends
    receiver.door.refuses = DoorRefused(why, "the reason")
    with pytest.raises(TransferRefused) as refused:
        await sender.link().push(pushed(payload=bytes(size)), receiver.contact())
    cause = refused.value.__cause__
    assert isinstance(cause, DoorRefused)
    assert (cause.why, cause.detail) == (why, "the reason")
    receiver.door.refuses = None
    await sender.push(receiver)


async def test_a_frame_that_is_refused_once_it_is_whole_says_why(ends: list[Member]) -> None:
    sender, receiver = ends
    receiver.door.refuses_whole = DoorRefused(Refusal.MALFORMED, "é" * 500)
    with pytest.raises(TransferRefused) as refused:
        await sender.link().push(pushed(), receiver.contact())
    cause = refused.value.__cause__
    assert isinstance(cause, DoorRefused)
    assert cause.why is Refusal.MALFORMED
    assert len(cause.detail) >= 100
    assert ("é" * 200).startswith(cause.detail)


async def test_a_repeat_is_acknowledged_and_other_bytes_of_its_name_are_not(ends: list[Member]) -> None:
    sender, receiver = ends
    for _ in range(3):
        await sender.push(receiver)
    with pytest.raises(TransferRefused):
        await sender.link().push(pushed(payload=b"other!"), receiver.contact())
    assert len(receiver.door.kept) == 1


async def test_many_frames_move_at_once_and_both_ways(ends: list[Member]) -> None:
    one, other = ends
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            payload = bytes([number]) * (100_000 * number + number)
            group.create_task(one.push(other, number, payload))
            group.create_task(other.push(one, 100 + number, payload))
    assert len(one.door.kept) == len(other.door.kept) == 12


async def test_a_frame_that_waits_at_the_door_holds_up_no_other_peers(ends: list[Member]) -> None:
    one, other = ends
    other.door.opened.clear()
    waiting = asyncio.create_task(one.push(other, payload=bytes(3_000_000)))
    await other.door.until("asked", 1)
    await other.push(one, 1, bytes(3_000_000))
    other.door.opened.set()
    async with asyncio.timeout(20):
        await waiting


async def test_who_is_away_is_unreachable_until_it_is_back(ends: list[Member]) -> None:
    sender, receiver = ends
    await sender.push(receiver)
    async with receiver.away():
        with pytest.raises(Unreachable):
            await sender.link().push(pushed(1), receiver.contact())
    async with asyncio.timeout(20):
        while True:  # a try may fail while the old way is found to be dead
            try:
                return await sender.push(receiver, 1)
            except TransportError:
                await asyncio.sleep(0.1)


async def test_a_cancelled_push_leaves_nothing_and_the_next_one_works(ends: list[Member]) -> None:
    sender, receiver = ends
    receiver.door.opened.clear()
    for _ in range(20):
        asked = receiver.door.asked
        pushing = asyncio.create_task(
            sender.link().push(pushed(payload=bytes(5_000_000)), receiver.contact())
        )
        await receiver.door.until("asked", asked + 1)
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing
    receiver.door.opened.set()
    await sender.push(receiver, 1)
    async with asyncio.timeout(20):
        while receiver.door.admitted:
            await receiver.door.changed.wait()
    assert len(receiver.door.kept) == 1


async def test_closing_ends_what_is_under_way_at_both_ends(ends: list[Member]) -> None:
    sender, receiver = ends
    receiver.door.opened.clear()
    pushing = asyncio.create_task(sender.link().push(pushed(payload=bytes(5_000_000)), receiver.contact()))
    await receiver.door.until("asked", 1)
    async with asyncio.timeout(10):
        await receiver.close()
        with pytest.raises(TransportError):
            await pushing
        await sender.close()
    with pytest.raises(TransportError):
        await sender.link().push(pushed(), receiver.contact())
