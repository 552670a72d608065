"""A door that keeps frames in memory, and acknowledges them by their digest."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from blake3 import blake3

from iota.wire.link import DoorRefused, Refusal


def acknowledgement(data: bytes | bytearray) -> bytes:
    """What a `MemoryDoor` answers to a frame: 64 bytes that no other frame has."""
    return blake3(data).digest(length=64)


@dataclass
class MemoryDoor:
    """A `Door` whose frames are told apart by their heads. Repeats are acknowledged, other bytes refused."""

    kept: dict[bytes, bytes | bytearray] = field(default_factory=dict)
    """Frames by their heads."""
    refuses: DoorRefused | None = None
    """Raised at each admission."""
    refuses_whole: DoorRefused | None = None
    """Raised once a frame is there."""
    most: int = 1 << 30
    """Bytes of a frame that is admitted at most."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """Admissions wait until it is set."""
    written: asyncio.Event = field(default_factory=asyncio.Event)
    """Frames that are there wait until it is set."""
    asked: int = 0
    admitted: list[bytes] = field(default_factory=list)
    """Heads of frames that are being read."""
    taking: list[bytes] = field(default_factory=list)
    """Heads of frames that are whole and wait."""
    given_up: list[bytes] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.opened.set()
        self.written.set()

    async def admit(self, head: bytes, size: int) -> bytes | None:
        self.asked += 1
        self._change()
        await self.opened.wait()
        if self.refuses is not None:
            raise self.refuses
        if size > self.most:
            raise DoorRefused(Refusal.MALFORMED, f"{size} bytes")
        self.admitted.append(head)
        self._change()
        return None

    async def take(self, head: bytes, data: bytes | bytearray) -> bytes:
        self.admitted.remove(head)
        self.taking.append(head)
        self._change()
        await self.written.wait()
        self.taking.remove(head)
        if self.refuses_whole is not None:
            raise self.refuses_whole
        if self.kept.setdefault(head, data) != data:
            raise DoorRefused(Refusal.OTHER)
        return acknowledgement(data)

    def give_up(self, head: bytes) -> None:
        self.admitted.remove(head)
        self.given_up.append(head)
        self._change()

    async def until(self, condition: str, count: int, within_s: float = 20.0) -> None:
        """Wait until as many frames as `count` are in the field `condition` (or it is that number)."""
        async with asyncio.timeout(within_s):
            while (value := getattr(self, condition)) is not None:
                if (value if isinstance(value, int) else len(value)) >= count:
                    return
                await self.changed.wait()

    def _change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
