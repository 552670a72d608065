"""The events of one member, as JSON: a million events as objects would make collecting garbage slow."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pydantic import TypeAdapter

from iota.protocol.events import Event, FrameReady

_EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Event)


Pack = tuple[int, int, bytes]
"""(number of the first, number of the last, data) of consecutive events, compressed: about 65 bytes for a
`frame_ready` of 400."""


@dataclass(slots=True)
class EventLog:
    """Numbered events. Only a node that restarts from its disk asks for the packed ones.

    There is one for each member, so it is made of what the garbage collector need not follow.
    """

    next_seq: int = 1
    """Number of the next event."""
    _packs: tuple[Pack, ...] = ()
    _fresh: bytearray = field(default_factory=bytearray)
    """The newest events, up to the last; a line feed after each."""
    _first: int = 1
    """Number of the first of them."""
    _old: int = 0
    """Events before this number are packed with the next frame that is delivered."""
    _aging: int = 0
    """`_old` after the next call of `age`."""

    def append(self, event: Event) -> None:
        """Add an event with the next number."""
        if isinstance(event, FrameReady):
            self.pack()
        self._fresh += _EVENT.dump_json(event) + b"\n"
        self.next_seq += 1

    def pack(self) -> None:
        """Pack the events that may be packed: called with each frame that is delivered to the member."""
        if self._old > self._first:
            first, old = self._first, self._take(self._old)
            self._packs = (*self._packs, (first, self._old - 1, zlib.compress(old)))

    def _take(self, number: int) -> bytes:
        """Remove the fresh events before `number` and return them."""
        end = 0
        for _ in range(number - self._first):
            end = self._fresh.index(b"\n", end) + 1
        taken = bytes(self._fresh[:end])
        del self._fresh[:end]
        self._first = number
        return taken

    def age(self) -> None:
        """A step was closed: events that were there at the last call have been fetched, and may be packed.

        It is done later, member by member, so that no single entry pays for all.
        """
        self._old, self._aging = self._aging, self.next_seq

    def after(self, number: int, limit: int | None = None) -> list[tuple[int, Event]]:
        """(number, event) of the events above `number`, in order; at most `limit`, if that is given."""
        limit = self.next_seq if limit is None else limit
        found: list[tuple[int, bytes]] = []
        for first, last, packed in self._packs:
            if last > number and len(found) < limit:
                lines = enumerate(zlib.decompress(packed).splitlines(), first)
                found += islice(lines, max(0, number + 1 - first), None)
        if len(found) < limit:
            begin = max(number + 1, self._first)
            found += enumerate(self._newest(self.next_seq - begin), begin)
        return [(n, _EVENT.validate_json(data)) for n, data in found[:limit]]

    def _newest(self, count: int) -> list[bytes]:
        """The newest fresh events; sought from the end, since a node mostly asks for the last few."""
        begin = len(self._fresh)
        for _ in range(count):
            begin = self._fresh.rfind(b"\n", 0, begin - 1) + 1
        return bytes(self._fresh[begin:]).splitlines()

    def forget_through(self, number: int) -> None:
        """Forget the events up to `number`; those of a pack go together, once its last one may go."""
        self._packs = tuple(pack for pack in self._packs if pack[1] > number)
        if number >= self._first:
            self._take(min(number + 1, self.next_seq))
