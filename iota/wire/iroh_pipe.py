"""Messages between a miner and its iroh process, over a socket that the two share.

    body length u32 LE | kind u8 | number u32 LE | body

A frame passes in chunks, so that a long one holds up neither others nor a sign of life, and a chunk is read
straight to its place.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

CHUNK: Final = 1 << 18
"""Most bytes of a frame in one message, and of a message's body."""
CREDIT: Final = 4 * CHUNK
"""Bytes of one outgoing frame that the iroh process holds at most, and not yet the network."""

_HEAD: Final = struct.Struct("<IBI")
_SOCKET_BUFFER: Final = 1 << 20
"""Bytes that the socket may hold; a system may allow less."""


class Kind(IntEnum):
    """What a message says. `number` is that of a push (miner's) or of an arrival (process's)."""

    CONFIG = 1
    """To the process, first of all: `IrohOptions` and the secret key."""
    READY = 2
    """To the miner: the endpoint is bound. A status."""
    FAILED_TO_START = 3
    """To the miner: why there is no endpoint. The process ends."""
    PING = 4
    """To the process: is its loop alive, and the library's runtime?"""
    PONG = 5
    """To the miner: they are. A status."""
    PREPARE = 6
    """To the process: keep a connection to this peer. A peer's address, and as `leave` a key that it had."""
    ADDRESSES = 7
    """To the process: further addresses at which this endpoint can be reached."""
    PUSH = 8
    """To the process: a frame to send. A peer's address, the sizes of head and frame. DATA follow."""
    DATA = 9
    """Bytes of a push, or of an arrival."""
    WRITTEN = 10
    """To the miner: pass on so many more bytes of a push (u32 LE), since its stream is open or the network
    has as many."""
    ANSWERED = 11
    """To the miner: the peer's answer to a push."""
    BROKEN = 12
    """To the miner: a push failed. JSON: whether the peer was unreachable, and why."""
    CANCEL = 13
    """To the process: a push is given up."""
    KEY = 14
    """To the miner: may a connection of this network key be taken?"""
    MEMBER = 15
    """To the process: it may (body 1) or may not (0). The number is KEY's."""
    HEAD = 16
    """To the miner: a frame comes. Key (32 bytes), size u64 LE, the frame's head."""
    ADMITTED = 17
    """To the process: read the rest of the arrival."""
    ANSWER = 18
    """To the process: what the sender of an arrival hears; it ends the arrival."""
    DROP = 19
    """To the process: end an arrival without an answer; with body 1, close its connection too."""
    GONE = 20
    """To the miner: the rest of an arrival does not come."""
    NOTE = 21
    """To the miner: something for the log. JSON: case, key, text."""


_CODES: Final = frozenset(Kind)


@dataclass(frozen=True)
class Message:
    """A message; `body` is empty where it was read to the reader's place."""

    kind: Kind
    number: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)


class PipeError(Exception):
    """The other end is gone, or says what is no message."""


Place = Callable[[Kind, int, int], memoryview | None]
"""Where a body of (kind, number, length) goes, of exactly that length; None for a message's own."""


class Pipe:
    """One end. One task reads, any number write."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        self._sock = sock
        self._queue: deque[tuple[bytes, memoryview | bytes, asyncio.Future[None] | None]] = deque()
        self._queued = asyncio.Event()
        self._closed = False

    def post(self, kind: Kind, number: int = 0, body: bytes = b"") -> None:
        """Queue a short message; nothing where the other end is gone."""
        self._put(kind, number, body, None)

    def post_json(self, kind: Kind, number: int, value: object) -> None:
        """Queue a short message whose body is JSON."""
        self.post(kind, number, json.dumps(value).encode())

    async def send(self, kind: Kind, number: int, body: memoryview | bytes) -> None:
        """Queue a message, and wait until the socket has it.

        It is sent whole even where the wait is cancelled, so `body` must stay as it is. Raises PipeError.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(kind, number, body, done)
        await done

    async def write(self) -> None:
        """Write what is queued, until the other end is gone or the task is cancelled. One task does this."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                while self._queue:
                    head, body, done = self._queue[0]
                    if len(body) <= 4096:
                        await loop.sock_sendall(self._sock, head + bytes(body))
                    else:
                        await loop.sock_sendall(self._sock, head)
                        await loop.sock_sendall(self._sock, body)
                    self._queue.popleft()
                    if done is not None and not done.done():
                        done.set_result(None)
                self._queued.clear()
                await self._queued.wait()
        except OSError as error:
            raise PipeError(f"the other end is gone: {error}") from error
        finally:
            self._fail_queued()

    async def read(self, place: Place) -> Message:
        """The next message. Raises PipeError."""
        head = bytearray(_HEAD.size)
        await self._fill(memoryview(head))
        length, code, number = _HEAD.unpack(head)
        if length > CHUNK or code not in _CODES:
            raise PipeError(f"no message: kind {code}, {length} bytes")
        kind = Kind(code)
        to = place(kind, number, length)
        if to is not None:
            await self._fill(to)
            return Message(kind, number, b"")
        body = bytearray(length)
        await self._fill(memoryview(body))
        return Message(kind, number, bytes(body))

    def close(self) -> None:
        """Close this end, which the other sees. Tasks that read or write must have ended."""
        self._fail_queued()
        self._sock.close()

    def _put(
        self, kind: Kind, number: int, body: memoryview | bytes, done: asyncio.Future[None] | None
    ) -> None:
        if self._closed:
            if done is not None:
                done.set_exception(PipeError("the other end is gone"))
            return
        self._queue.append((_HEAD.pack(len(body), kind, number), body, done))
        self._queued.set()

    def _fail_queued(self) -> None:
        self._closed = True
        for _, _, done in self._queue:
            if done is not None and not done.done():
                done.set_exception(PipeError("the other end is gone"))
        self._queue.clear()

    async def _fill(self, view: memoryview) -> None:
        loop = asyncio.get_running_loop()
        while view:
            try:
                got = await loop.sock_recv_into(self._sock, view)
            except OSError as error:
                raise PipeError(f"the other end is gone: {error}") from error
            if not got:
                raise PipeError("the other end has closed")
            view = view[got:]
