"""Frames that come by iroh: asked for at the door, read to their place, taken, answered."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from iota.wire.iroh_pipe import Kind, Message, Pipe, PipeError
from iota.wire.link import MAX_HEAD, Door, DoorRefused, Refusal

MAX_DETAIL: Final = 200
"""Bytes of a refusal's detail."""
KEPT: Final = b"\0"
REFUSED: Final = b"\1"
"""First byte of an answer: the 64-byte acknowledgement follows, or the refusal, a newline and the detail."""

_BEGIN: Final = struct.Struct("<32sQ")

_log = logging.getLogger(__name__)


@dataclass
class _Arrival:
    """A frame on its way in."""

    whole: asyncio.Future[None]
    task: asyncio.Task[None] | None = None
    buffer: bytearray | None = None
    """The frame, once it is admitted."""
    filled: int = 0


class IrohArrivals:
    """Everything that comes, over all lives of the process: what the door is taking survives one's end."""

    def __init__(self, door: Door, is_member: Callable[[str], bool]) -> None:
        """`is_member` says whether a network key (hex) is that of a current member's contact."""
        self._door, self._is_member = door, is_member
        self._arrivals: dict[int, _Arrival] = {}
        """Those of the present life, by its numbers."""
        self._tasks: set[asyncio.Task[None]] = set()

    def place(self, kind: Kind, number: int, length: int) -> memoryview | None:
        """Where the next bytes of an arrival go. Raises PipeError where they are too many."""
        arrival = self._arrivals.get(number) if kind is Kind.DATA else None
        if arrival is None or arrival.buffer is None:
            return None
        start, arrival.filled = arrival.filled, arrival.filled + length
        if arrival.filled > len(arrival.buffer):
            raise PipeError("it passes more bytes of a frame than there are")
        return memoryview(arrival.buffer)[start : arrival.filled]

    def take(self, message: Message, pipe: Pipe) -> None:
        """Take KEY, HEAD, DATA or GONE. Raises struct.error or PipeError for nonsense."""
        arrival = self._arrivals.get(message.number)
        match message.kind:
            case Kind.KEY:
                known = len(message.body) == 32 and self._is_member(message.body.hex())
                pipe.post(Kind.MEMBER, message.number, b"\1" if known else b"\0")
            case Kind.HEAD:
                self._begin(message, pipe)
            case Kind.DATA if arrival is not None and arrival.buffer is not None:
                if arrival.filled == len(arrival.buffer) and not arrival.whole.done():
                    arrival.whole.set_result(None)
            case Kind.GONE if arrival is not None:
                self._lose(arrival)

    def lose_all(self) -> None:
        """The process has ended: nothing more comes."""
        for arrival in list(self._arrivals.values()):
            self._lose(arrival)
        self._arrivals.clear()

    async def close(self) -> None:
        """End everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, message: Message, pipe: Pipe) -> None:
        key, size = _BEGIN.unpack_from(message.body)
        head = message.body[_BEGIN.size :]
        if not 0 < len(head) <= MAX_HEAD or size < len(head) or message.number in self._arrivals:
            raise PipeError("it passes no head of a frame")
        arrival = _Arrival(asyncio.get_running_loop().create_future())
        self._arrivals[message.number] = arrival
        work = self._receive(message.number, arrival, key.hex(), head, size, pipe)
        arrival.task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(arrival.task)
        arrival.task.add_done_callback(partial(self._ended, message.number, arrival))

    async def _receive(
        self, number: int, arrival: _Arrival, key: str, head: bytes, size: int, pipe: Pipe
    ) -> None:
        try:
            # Asked again: its contact may have expired since the connection was taken.
            if not self._is_member(key):
                pipe.post(Kind.DROP, number, b"\1")
                return
            acknowledgement = await self._through_the_door(number, arrival, head, size, pipe)
            pipe.post(Kind.ANSWER, number, KEPT + acknowledgement)
        except DoorRefused as refused:
            pipe.post(Kind.ANSWER, number, _refusal(refused))
        except _Gone:
            pass
        except Exception:  # noqa: BLE001 - the edge of what a stranger's frame can reach: one frame's matter
            _log.exception("a frame that came by iroh could not be taken")
            pipe.post(Kind.DROP, number)

    async def _through_the_door(
        self, number: int, arrival: _Arrival, head: bytes, size: int, pipe: Pipe
    ) -> bytes:
        if (known := await self._door.admit(head, size)) is not None:
            return known
        try:
            arrival.buffer = bytearray(size)
            arrival.buffer[: len(head)] = head
            arrival.filled = len(head)
            if size == len(head):
                arrival.whole.set_result(None)
            pipe.post(Kind.ADMITTED, number)
            await arrival.whole
        except BaseException:
            self._door.give_up(head)
            raise
        arrival.task = None  # from here on it is the door's, whatever becomes of the process
        data, arrival.buffer = arrival.buffer, None
        return await self._door.take(head, data)

    def _ended(self, number: int, arrival: _Arrival, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._arrivals.get(number) is arrival:
            del self._arrivals[number]

    def _lose(self, arrival: _Arrival) -> None:
        if arrival.buffer is not None and not arrival.whole.done():
            arrival.whole.set_exception(_Gone())
        elif arrival.buffer is None and arrival.task is not None:
            arrival.task.cancel()  # it waits at the door


class _Gone(Exception):
    """The rest of a frame does not come."""


def _refusal(refused: DoorRefused) -> bytes:
    detail = refused.detail.encode()[:MAX_DETAIL].decode("utf-8", "ignore").encode()
    return REFUSED + refused.why.encode() + b"\n" + detail


def read_answer(answer: bytes) -> bytes | DoorRefused:
    """What a peer answered: its acknowledgement (64 bytes) or a refusal. Raises ValueError for neither."""
    status, rest = answer[:1], answer[1:]
    if status == KEPT and len(rest) == 64:
        return rest
    if status == REFUSED:
        why, _, detail = rest.partition(b"\n")
        if len(detail) <= MAX_DETAIL:
            return DoorRefused(Refusal(why.decode("ascii")), detail.decode("utf-8"))
    raise ValueError("no answer to a frame")
