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
`frame_ready` of 400. A plain tuple, which the garbage collector need not follow."""


@dataclass(slots=True)
class EventLog:
    """Numbered events. Only a node that restarts from its disk asks for the packed ones."""

    next_seq: int = 1
    """Number of the next event."""
    _packs: list[Pack] = field(default_factory=list)
    _fresh: list[bytes] = field(default_factory=list)
    """The newest events, up to the last."""
    _old: int = 0
    """Events before this number are packed with the next frame that is announced."""
    _aging: int = 0
    """`_old` after the next call of `age`."""

    @property
    def _first(self) -> int:
        return self.next_seq - len(self._fresh)

    def append(self, event: Event) -> None:
        """Add an event with the next number."""
        if isinstance(event, FrameReady) and (count := self._old - self._first) > 0:
            data = zlib.compress(b"\n".join(self._fresh[:count]))
            self._packs.append((self._first, self._first + count - 1, data))
            del self._fresh[:count]
        self._fresh.append(_EVENT.dump_json(event))
        self.next_seq += 1

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
                found += enumerate(zlib.decompress(packed).split(b"\n"), first)
        if len(found) < limit:
            skipped = max(0, number + 1 - self._first)
            found += enumerate(islice(self._fresh, skipped, skipped + limit), self._first + skipped)
        wanted = islice(((n, data) for n, data in found if n > number), limit)
        return [(n, _EVENT.validate_json(data)) for n, data in wanted]

    def forget_through(self, number: int) -> None:
        """Forget the events up to `number`; those of a pack go together, once its last one may go."""
        self._packs = [pack for pack in self._packs if pack[1] > number]
        del self._fresh[: max(0, number + 1 - self._first)]
