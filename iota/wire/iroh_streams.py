"""One frame in one bidirectional QUIC stream, as the iroh process moves it.

    to the receiver: head length u16 LE | frame length u64 LE | frame
    to the sender:   the answer, which the two miners make and read

The payload follows the head at once, without a round trip; QUIC's window (1.25 MB a stream) bounds what comes
before the receiver's miner admits it.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from contextlib import suppress
from typing import Any, Final

import iroh

from iota.wire.iroh_connections import Note
from iota.wire.iroh_live import Live
from iota.wire.iroh_options import MAX_ANSWER, IrohOptions
from iota.wire.iroh_pipe import CHUNK, CREDIT, Kind, Pipe

MAX_FRAME: Final = 1 << 34
"""Most bytes of a frame that is passed to the miner, which knows its exact size."""

_PREFACE: Final = struct.Struct("<HQ")
_MAX_HEAD: Final = 4096
_GIVEN_UP: Final = 1
"""The error code of a stream that one side abandons."""
_LAST_WORD_S: Final = 5.0
"""For an answer to be written, or to be read where the receiver stopped reading."""


class StreamFailed(Exception):
    """The peer is there, and does not keep to the protocol or has given the frame up."""


class Outgoing:
    """The chunks of a push that the miner has passed on, in order."""

    def __init__(self) -> None:
        self._chunks: deque[memoryview] = deque()
        self._more = asyncio.Event()

    def put(self, chunk: memoryview) -> None:
        """Add the next chunk, whose bytes must stay."""
        self._chunks.append(chunk)
        self._more.set()

    async def next(self) -> memoryview:
        """The next chunk."""
        while not self._chunks:
            self._more.clear()
            await self._more.wait()
        return self._chunks.popleft()


class Arrival:
    """What the miner says about a frame that comes."""

    def __init__(self, live: Live) -> None:
        loop = asyncio.get_running_loop()
        self.live = live
        self.admitted: asyncio.Future[bool] = loop.create_future()
        """Whether its payload is read; False where the answer is there already."""
        self.answer: asyncio.Future[bytes | None] = loop.create_future()
        """None: the stream ends without one."""

    def admit(self) -> None:
        """Its payload is to be read."""
        if not self.admitted.done():
            self.admitted.set_result(True)

    def end(self, answer: bytes | None) -> None:
        """It is answered."""
        if not self.admitted.done():
            self.admitted.set_result(False)
        if not self.answer.done():
            self.answer.set_result(answer)


async def send_frame(
    live: Live, head_size: int, size: int, outgoing: Outgoing, pipe: Pipe, number: int
) -> bytes:
    """Send a frame whose chunks the miner passes on; returns the answer.

    Raises:
        StreamFailed: the peer gave it up.
        IrohError: as above, or the connection ended.
    """
    stream = await live.connection.open_bi()
    sender, receiver = stream.send(), stream.recv()
    try:
        try:
            await sender.write_all(_PREFACE.pack(head_size, size))
            left = size
            _take_more(pipe, number, CREDIT)
            while left:
                chunk = await outgoing.next()
                await sender.write_all(chunk)  # type: ignore[arg-type]  # any buffer will do
                left -= len(chunk)
                _take_more(pipe, number, len(chunk))
            await sender.finish()
        except iroh.IrohError:
            # The receiver reads no further where it refuses the frame, and says so.
            async with asyncio.timeout(_LAST_WORD_S):
                answer = await receiver.read_to_end(MAX_ANSWER)
        else:
            answer = await receiver.read_to_end(MAX_ANSWER)
    except TimeoutError as error:
        raise StreamFailed("it stopped reading and does not say why") from error
    except BaseException:
        await _abandon(sender, receiver)
        raise
    if not answer:
        raise StreamFailed("it ended the stream without an answer")
    return answer


def _take_more(pipe: Pipe, number: int, size: int) -> None:
    pipe.post(Kind.WRITTEN, number, size.to_bytes(4, "little"))


async def receive_frame(
    live: Live,
    stream: iroh.BiStream,
    arrival: Arrival,
    pipe: Pipe,
    number: int,
    options: IrohOptions,
    note: Note,
) -> bool:
    """Pass a frame of the peer to the miner, and its answer to the peer; returns whether all of it came.

    Never raises but by cancellation.
    """
    sender, receiver = stream.send(), stream.recv()
    passed = whole = False
    try:
        async with asyncio.timeout(options.head_s):
            head_size, size = _PREFACE.unpack(await receiver.read_exact(_PREFACE.size))
            if not 0 < head_size <= _MAX_HEAD or not head_size <= size <= MAX_FRAME:
                raise StreamFailed(f"a stream of garbage: a head of {head_size} bytes, a frame of {size}")
            head = await receiver.read_exact(head_size)
        passed = True
        await pipe.send(Kind.HEAD, number, bytes.fromhex(live.key) + size.to_bytes(8, "little") + head)
        if await _admitted(arrival, receiver):
            async with asyncio.timeout(options.grace_s + size / options.least_rate):
                left = size - head_size
                while left:
                    data = await receiver.read_exact(min(CHUNK, left))
                    await pipe.send(Kind.DATA, number, data)
                    left -= len(data)
            passed, whole = False, True
        answer = await arrival.answer
        passed = False
        if answer is None:
            raise StreamFailed("")
        async with asyncio.timeout(_LAST_WORD_S):
            await sender.write_all(answer)
            await sender.finish()
            await receiver.stop(0)
    except TimeoutError:
        note("too-slow", live.key, "it sends a frame more slowly than the least rate, or reads no answer")
        await _abandon(sender, receiver)
    except StreamFailed as error:
        if text := str(error):
            note("garbage", live.key, text)
        await _abandon(sender, receiver)
    except iroh.IrohError:  # it gave the frame up, or went away
        await _abandon(sender, receiver)
    except asyncio.CancelledError:
        await _abandon(sender, receiver)
        raise
    finally:
        if passed:
            pipe.post(Kind.GONE, number)
    return whole


async def _admitted(arrival: Arrival, receiver: iroh.RecvStream) -> bool:
    """Whether the miner admits the frame. Raises IrohError where the sender goes away before."""
    reset = asyncio.ensure_future(receiver.received_reset())
    either: set[asyncio.Future[Any]] = {reset, arrival.admitted}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not arrival.admitted.done() and reset.result() is not None:
            raise StreamFailed("")
        return await arrival.admitted
    finally:
        reset.cancel()
        await asyncio.wait({reset})
        if not reset.cancelled():
            reset.exception()  # it has been looked at


async def _abandon(sender: iroh.SendStream, receiver: iroh.RecvStream) -> None:
    with suppress(iroh.IrohError):
        await sender.reset(_GIVEN_UP)
    with suppress(iroh.IrohError):
        await receiver.stop(_GIVEN_UP)
