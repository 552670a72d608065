"""Messages between a miner and its iroh process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from iota.wire.iroh_pipe import CHUNK, Kind, Message, Pipe, PipeError


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Pipe, Pipe]]:
    """Two ends, of which the first writes."""
    one, other = map(Pipe, socket.socketpair())
    writing = asyncio.create_task(one.write())
    yield one, other
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    one.close()
    other.close()


def _own(*_: object) -> None:
    return None


async def test_messages_come_whole_and_in_order(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    one.post(Kind.PING)
    one.post_json(Kind.PUSH, 7, {"size": 3})
    sending = asyncio.create_task(one.send(Kind.DATA, 7, bytes(CHUNK)))
    await asyncio.sleep(0)
    one.post(Kind.CANCEL, (1 << 32) - 1, b"x")
    assert await other.read(_own) == Message(Kind.PING, 0, b"")
    assert (await other.read(_own)).json() == {"size": 3}
    assert await other.read(_own) == Message(Kind.DATA, 7, bytes(CHUNK))
    await sending
    assert await other.read(_own) == Message(Kind.CANCEL, (1 << 32) - 1, b"x")


async def test_a_body_is_read_to_its_place(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    place = bytearray(100)
    sending = asyncio.create_task(one.send(Kind.DATA, 1, b"y" * 40))
    message = await other.read(lambda kind, number, length: memoryview(place)[10 : 10 + length])
    await sending
    assert message == Message(Kind.DATA, 1, b"")
    assert place == bytes(10) + b"y" * 40 + bytes(50)


async def test_a_send_that_is_cancelled_leaves_whole_messages(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    sends = [
        asyncio.create_task(one.send(Kind.DATA, number, bytes([number]) * CHUNK)) for number in range(40)
    ]
    await asyncio.sleep(0)
    for task in sends[5:]:
        task.cancel()
    for number in range(40):
        assert await other.read(_own) == Message(Kind.DATA, number, bytes([number]) * CHUNK)
    await asyncio.gather(*sends, return_exceptions=True)


async def test_the_end_of_the_other_side_fails_reads_and_sends() -> None:
    one, other = map(Pipe, socket.socketpair())
    sending = asyncio.create_task(one.send(Kind.DATA, 1, bytes(CHUNK)))
    waiting = asyncio.create_task(one.send(Kind.DATA, 2, bytes(CHUNK)))
    await asyncio.sleep(0)
    other.close()
    with pytest.raises(PipeError):
        await one.read(_own)
    with pytest.raises(PipeError):
        await one.write()
    for task in (sending, waiting):
        with pytest.raises(PipeError):
            await task
    one.post(Kind.PING)
    with pytest.raises(PipeError):
        await one.send(Kind.PING, 0, b"")
    one.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\x01" + bytes(4),
        (CHUNK + 1).to_bytes(4, "little") + b"\x09" + bytes(4),
        bytes(4) + b"\x00" + bytes(4),
        bytes(4) + b"\xff" + bytes(4),
        b"abc",
        (10).to_bytes(4, "little") + b"\x09" + bytes(4) + b"short",
    ],
)
async def test_nonsense_is_refused_before_its_body_is_read(data: bytes) -> None:
    raw, end = socket.socketpair()
    pipe = Pipe(end)
    raw.sendall(data)
    raw.close()
    with pytest.raises(PipeError):
        await pipe.read(_own)
    pipe.close()
