"""The door of a miner: what all links ask about frames that are pushed, and where they hand them in.

A frame's head is checked before its payload is read: its form, its sender's signature, and whether the miner
expects it. So a stranger costs one signature check, and a peer can make this miner read only what the plan
says that it is to send. A frame that comes before its plan waits here, within bounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from cachetools import LRUCache

from iota.codec.shapes import payload_size
from iota.identity.signatures import signing_bytes
from iota.protocol.frames import KEPT_DOMAIN, FrameName, FrameNotice, kept_statement
from iota.spec import RunSpec
from iota.wire.arrivals import Arrivals
from iota.wire.expectation import EarliestStep, Expectation, Expects
from iota.wire.frame import FrameError, FrameHeader, read_head
from iota.wire.link import DoorRefused, Refusal
from iota.wire.receiving_room import Place, ReceivingRoom, RoomLimits
from iota.wire.transport import IncomingFrame
from iota.wire.troubles import Troubles

EARLY_S: Final = 0.4
"""How long a frame may wait for its plan, which left for us when its sender got it: less than what makes a
sender take a link for slow."""
_EARLY_OF_ONE: Final = 8
"""Frames of one sender that may wait for their plan."""
_EARLY: Final = 256
"""Those of all senders: heads without payloads."""
_STRANGERS: Final = 64
"""Those of senders that this miner has not met: anybody can sign a frame."""
_KEPT: Final = 1 << 13
"""Acknowledgements that are remembered, to be given again: those of several steps."""

_REPEATS: Final = 8
"""Times that a frame is acknowledged again before the log names its sender: a lost acknowledgement or two are
the network's."""

_MOST_SPOILED: Final = 3
"""Times that what a head promises is read and found to be something else: then it comes by the store."""

SHUT: Final = "this miner takes no frames now"
_TOO_EARLY: Final = "too many frames wait for their plans"
log = logging.getLogger(__name__)
Sign = Callable[[bytes], bytes]


@dataclass(slots=True)
class _Kept:
    """A frame that is on disk."""

    head: bytes
    acknowledgement: bytes
    again: int = 0
    """Times that it was acknowledged again."""


@dataclass
class _Reading:
    """A frame that is being read or taken, by one link or two."""

    header: FrameHeader
    """Checked when it was admitted."""
    places: list[Place]


_NOT_EXPECTED: Final = {
    Expectation.OVER: "nothing here needs them any more",
    Expectation.WRONG: "the plan has them from another miner, or not at all",
}


class FrameDoor:
    """The `Door` of one life of a replica."""

    def __init__(
        self,
        spec: RunSpec,
        sign: Sign,
        expects: Expects,
        earliest_step: EarliestStep,
        knows: Callable[[str], bool],
        arrivals: Arrivals,
    ) -> None:
        """`sign` makes this miner's signatures; it `knows` the members that it has met. Frames come out of
        `arrivals`."""
        self._spec, self._sign, self._expects, self._earliest = spec, sign, expects, earliest_step
        self._knows, self._arrivals = knows, arrivals
        self._kept: LRUCache[FrameName, _Kept] = LRUCache(_KEPT)
        """Frames that are on disk."""
        self._troubles = Troubles(log)
        self._room = ReceivingRoom(RoomLimits.for_frames(payload_size(spec)))
        self._spoiled: LRUCache[tuple[str, FrameName], int] = LRUCache(_KEPT)
        """Frames whose payloads were read for nothing, by sender and name."""
        self._reading: dict[bytes, _Reading] = {}
        """By head."""
        self._waiting: dict[Place, asyncio.Future[None]] = {}
        self._answers: set[asyncio.Future[str | None]] = set()
        """Of frames that the miner checks and writes now."""
        self._early: Counter[str] = Counter()
        self._strangers = 0
        """Of those that wait: frames of senders that this miner has not met."""
        self._changed = asyncio.Event()
        self.closed = False

    def expectations_changed(self) -> None:
        """Frames that came before their plan may be expected now."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._let_in(self._room.open_from(self._earliest()))

    def close(self) -> None:
        """Refuse everything from now on."""
        self.closed = True
        for answer in self._answers:
            if not answer.done():
                answer.set_result(SHUT)
        self._let_in([*self._waiting])
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
        try:
            return await self._admit(header, head, size)
        except DoorRefused as refused:
            self._name(header.sender, refused)
            raise

    async def _admit(self, header: FrameHeader, head: bytes, size: int) -> bytes | None:
        if (known := self._known(header, head)) is not None:
            return known
        if self._spoiled.get((header.sender, header.name), 0) >= _MOST_SPOILED:
            raise DoorRefused(Refusal.NOT_EXPECTED, "it was something else each time that it was read")
        await self._expected(header)
        if (known := self._known(header, head)) is not None:
            return known
        await self._find_room(header, head, size)
        return None

    async def take(self, head: bytes, data: bytes | bytearray) -> bytes:
        admitted = self._reading.get(head)
        # One that a former life's door admitted is looked at anew.
        header = read_head(head, self._spec) if admitted is None else admitted.header
        try:
            return await self._keep(header, head, data)
        except DoorRefused as refused:
            self._name(header.sender, refused)
            raise
        finally:
            self._leave(head)

    def give_up(self, head: bytes) -> None:
        sender = self._leave(head)
        if sender is not None and not self.closed:
            text = (
                f"frames that {sender} has signed do not come to their end: they break off, or are too slow"
            )
            self._say(sender, "part", text, logging.INFO)  # its other link may have been faster

    def _leave(self, head: bytes) -> str | None:
        """The frame takes no room any more. Its sender; None where it took none."""
        reading = self._reading.get(head)
        if reading is None:
            return None
        place = reading.places.pop()
        if not reading.places:
            del self._reading[head]
        self._let_in(self._room.release(place))
        return place.sender

    def _name(self, sender: str, refused: DoorRefused) -> None:
        match refused.why:
            case Refusal.MALFORMED | Refusal.OTHER if not self.closed:
                text = f"frames that {sender} has signed are not what they should be: {refused}"
                self._say(sender, refused.why, text)
            case Refusal.NOT_EXPECTED:
                text = f"frames that {sender} has signed are not expected of it here: {refused.detail}"
                self._say(sender, refused.why, text, logging.INFO)  # an event may be on its way
            case Refusal.LATER if refused.detail == _TOO_EARLY:
                text = f"many frames that {sender} has signed come before their plans, and are put off"
                self._say(sender, _TOO_EARLY, text)

    def _say(self, sender: str, case: str, text: str, level: int = logging.WARNING) -> None:
        """Name a sender's trouble; those whom this miner has not met are other cases, and take no lines."""
        self._troubles.name(sender, case if self._knows(sender) else f"stranger: {case}", text, level)

    async def _keep(self, header: FrameHeader, head: bytes, data: bytes | bytearray) -> bytes:
        digest = await asyncio.to_thread(lambda: blake3(data).hexdigest())
        notice = FrameNotice(name=header.name, digest=digest, size=len(data))
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)

        def settle(why: str | None) -> None:
            if not answer.done():
                answer.set_result(why)

        try:
            await self._arrivals.pass_on(
                IncomingFrame(notice, header.sender, data, pushed=True, settle=settle)
            )
            why = await answer
        finally:
            self._answers.discard(answer)
        if why is not None:
            place = header.sender, header.name
            self._spoiled[place] = self._spoiled.get(place, 0) + 1
            raise DoorRefused(Refusal.MALFORMED, why)
        statement = kept_statement(self._spec.id, header.name, digest)
        signature = self._sign(signing_bytes(KEPT_DOMAIN, statement))
        self._kept[header.name] = _Kept(head, signature)
        return signature

    def _known(self, header: FrameHeader, head: bytes) -> bytes | None:
        """The acknowledgement, if this frame was kept. Raises DoorRefused where another of its name was."""
        if self.closed:
            raise DoorRefused(Refusal.LATER, SHUT)
        kept = self._kept.get(header.name)
        if kept is None:
            return None
        if kept.head != head:
            raise DoorRefused(Refusal.OTHER, "another one of its name is here")
        kept.again += 1
        if kept.again > _REPEATS:
            text = f"frames that {header.sender} has signed come again and again after they were kept"
            self._say(header.sender, "again", text)
        return kept.acknowledgement

    async def _expected(self, header: FrameHeader) -> None:
        """Returns once the miner expects such a frame. Raises DoorRefused."""
        found = self._expects(header)
        if found is Expectation.EARLY:
            found = await self._wait_for_plan(header)
        if found is Expectation.EARLY:
            raise DoorRefused(Refusal.LATER, "its plan has not come here yet")
        if found is not Expectation.EXPECTED:
            raise DoorRefused(Refusal.NOT_EXPECTED, _NOT_EXPECTED[found])

    async def _wait_for_plan(self, header: FrameHeader) -> Expectation:
        with self._counted_early(header.sender):
            try:
                async with asyncio.timeout(EARLY_S):
                    while not self.closed and (found := self._expects(header)) is Expectation.EARLY:
                        await self._changed.wait()
            except TimeoutError:
                return Expectation.EARLY
        if self.closed:
            raise DoorRefused(Refusal.LATER, SHUT)
        return found

    @contextmanager
    def _counted_early(self, sender: str) -> Iterator[None]:
        stranger = not self._knows(sender)
        full = self._strangers >= _STRANGERS if stranger else self._early.total() >= _EARLY
        if full or self._early[sender] >= _EARLY_OF_ONE:
            raise DoorRefused(Refusal.LATER, _TOO_EARLY)
        self._early[sender] += 1
        self._strangers += stranger
        try:
            yield
        finally:
            self._strangers -= stranger
            self._early[sender] -= 1
            if not self._early[sender]:
                del self._early[sender]

    async def _find_room(self, header: FrameHeader, head: bytes, size: int) -> None:
        """Returns once the frame may be read. Raises DoorRefused."""
        place = self._room.ask(header.sender, header.name, size)
        if place is None:
            raise DoorRefused(Refusal.LATER, "there is no room for it now")
        try:
            if not place.reading:
                self._waiting[place] = asyncio.get_running_loop().create_future()
                await self._waiting[place]
            if self.closed:
                raise DoorRefused(Refusal.LATER, SHUT)
        except BaseException:
            self._let_in(self._room.release(place))
            raise
        finally:
            self._waiting.pop(place, None)
        self._reading.setdefault(head, _Reading(header, [])).places.append(place)

    def _let_in(self, places: Iterable[Place]) -> None:
        for place in places:
            waiter = self._waiting.get(place)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)


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
            raise DoorRefused(Refusal.LATER, SHUT)
        return self._door
