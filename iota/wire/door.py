"""The door of a miner: what all links ask about frames that are pushed, and where they hand them in.

A frame's head is checked before its payload is read: its form, its sender's signature, and whether the miner
expects it. So a stranger costs one signature check, and a peer can make this miner read only what the plan
says that it is to send. A frame that comes before its plan waits here, within bounds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from blake3 import blake3
from cachetools import LRUCache

from iota.identity.signatures import signing_bytes
from iota.protocol.frames import KEPT_DOMAIN, Direction, FrameName, FrameNotice, kept_statement
from iota.spec import RunSpec
from iota.wire.arrivals import Arrivals
from iota.wire.expectation import EarliestStep, Expectation, Expects
from iota.wire.frame import FrameError, FrameHeader, read_head
from iota.wire.link import DoorRefused, Refusal
from iota.wire.receiving_room import Asked, ReceivingRoom
from iota.wire.transport import IncomingFrame

EARLY_S: Final = 10.0
"""How long a frame may wait for its plan. It sets off when its sender has the plan, so ours is under way."""
_EARLY_OF_ONE: Final = 8
"""Frames of one sender that may wait for their plan."""
_EARLY: Final = 64
"""Those of all senders: heads without payloads."""
_KEPT: Final = 1 << 13
"""Acknowledgements that are remembered, to be given again: those of several steps."""

Sign = Callable[[bytes], bytes]


class FrameDoor:
    """The `Door` of one life of a replica."""

    def __init__(
        self, spec: RunSpec, sign: Sign, expects: Expects, earliest_step: EarliestStep, arrivals: Arrivals
    ) -> None:
        """`sign` makes this miner's signatures. Admitted frames come out of `arrivals`."""
        self._spec, self._sign, self._expects, self._earliest = spec, sign, expects, earliest_step
        self._arrivals = arrivals
        self._room = ReceivingRoom()
        self._reading: dict[bytes, list[Asked]] = {}
        """By head: what is being read of it. Two links may bring one frame at a time."""
        self._waiting: dict[Asked, asyncio.Future[None]] = {}
        self._kept: LRUCache[FrameName, tuple[bytes, bytes]] = LRUCache(_KEPT)
        """Head and acknowledgement of frames that are on disk."""
        self._early: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self.closed = False

    def expectations_changed(self) -> None:
        """Frames that came before their plan may be expected now."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Refuse everything from now on."""
        self.closed = True
        self.expectations_changed()

    async def admit(self, head: bytes, size: int) -> bytes | None:
        try:
            header = read_head(head, self._spec)
        except FrameError as error:
            raise DoorRefused(Refusal.MALFORMED, str(error)) from error
        if size != len(head) + header.size:
            raise DoorRefused(
                Refusal.MALFORMED, f"{size} bytes where the frame has {len(head) + header.size}"
            )
        if (known := self._known(header, head)) is not None:
            return known
        await self._expected(header)
        if (known := self._known(header, head)) is not None:
            return known
        await self._ask_for_room(header, head, size)
        return None

    async def take(self, head: bytes, data: bytes) -> bytes:
        try:
            digest = await asyncio.to_thread(lambda: blake3(data).hexdigest())
            header = read_head(head, self._spec, verified=True)
            answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
            notice = FrameNotice(name=header.name, digest=digest, size=len(data))

            def settle(why: str | None) -> None:
                if not answer.done():
                    answer.set_result(why)

            arrived = IncomingFrame(notice, header.sender, data, pushed=True, settle=settle)
            await self._arrivals.put_arrived(arrived)
            if (why := await answer) is not None:
                raise DoorRefused(Refusal.MALFORMED, why)
        finally:
            self.give_up(head)
        signature = self._sign(signing_bytes(KEPT_DOMAIN, kept_statement(self._spec.id, header.name, digest)))
        self._kept[header.name] = (head, signature)
        return signature

    def give_up(self, head: bytes) -> None:
        asked = self._reading[head].pop()
        if not self._reading[head]:
            del self._reading[head]
        self._let_in(self._room.release(asked))

    def forget(self, name: FrameName) -> None:
        """A frame that was kept cannot be used: it is not acknowledged again."""
        self._kept.pop(name, None)

    def _known(self, header: FrameHeader, head: bytes) -> bytes | None:
        """The acknowledgement, if this frame was kept. Raises DoorRefused where another of its name was."""
        if self.closed:
            raise DoorRefused(Refusal.LATER, "this miner takes no frames now")
        kept = self._kept.get(header.name)
        if kept is None:
            return None
        if kept[0] != head:
            raise DoorRefused(Refusal.OTHER)
        return kept[1]

    async def _expected(self, header: FrameHeader) -> None:
        """Returns once the miner expects such a frame. Raises DoorRefused."""
        found = self._expects(header)
        if found is Expectation.EARLY:
            found = await self._wait_for_plan(header)
        if found is Expectation.EARLY:
            raise DoorRefused(Refusal.LATER, "its plan has not come here yet")
        if found is not Expectation.EXPECTED:
            raise DoorRefused(Refusal.NOT_EXPECTED, str(found))

    async def _wait_for_plan(self, header: FrameHeader) -> Expectation:
        with self._counted_early(header.sender):
            try:
                async with asyncio.timeout(EARLY_S):
                    while not self.closed and (found := self._expects(header)) is Expectation.EARLY:
                        await self._changed.wait()
            except TimeoutError:
                return Expectation.EARLY
        if self.closed:
            raise DoorRefused(Refusal.LATER, "this miner takes no frames now")
        return found

    @contextmanager
    def _counted_early(self, sender: str) -> Iterator[None]:
        if self._early[sender] >= _EARLY_OF_ONE or self._early.total() >= _EARLY:
            raise DoorRefused(Refusal.LATER, "too many frames wait for their plans")
        self._early[sender] += 1
        try:
            yield
        finally:
            self._early[sender] -= 1
            if not self._early[sender]:
                del self._early[sender]

    async def _ask_for_room(self, header: FrameHeader, head: bytes, size: int) -> None:
        name = header.name
        backward = name.direction is Direction.BACKWARD
        earliest = (name.epoch, name.step) <= self._earliest()
        asked = self._room.ask(header.sender, name.direction, size, first=backward or earliest)
        ...


class Doorway:
    """The `Door` that links hold: it leads to that of the present life, or is shut between two lives."""

    def __init__(self) -> None:
        self._door: FrameDoor | None = None

    def open(self, door: FrameDoor) -> None:
        """Lead to this door from now on."""
        self._door = door

    def close(self, door: FrameDoor) -> None:
        """Shut the door of a life that has ended, unless a later one is open."""
        door.close()
        if self._door is door:
            self._door = None

    async def admit(self, head: bytes, size: int) -> bytes | None:
        return await self._present().admit(head, size)

    async def take(self, head: bytes, data: bytes | bytearray) -> bytes:
        return await self._present().take(head, data)

    def give_up(self, head: bytes) -> None:
        if self._door is not None:
            self._door.give_up(head)

    def _present(self) -> FrameDoor:
        if self._door is None:
            raise DoorRefused(Refusal.LATER, "this miner takes no frames now")
        return self._door
