"""The seam between a miner and the ways in which its frames travel.

A transport moves whole frames, one try a call. Its user decides whether a failed try is repeated, and
checks digest, signature and sender of what arrives: in one place, whichever transport brought it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from iota.protocol.events import Delivered
from iota.protocol.messages import FrameNotice


class TransportError(Exception):
    """A frame was not moved. A few more tries may help: a far side that has just come back may lag."""


class Unreachable(TransportError):
    """The far side is away. It comes back by itself, or when an operator has seen to it."""


class TransferRefused(TransportError):
    """The frame cannot be moved however often it is tried."""


@dataclass(frozen=True)
class OutgoingFrame:
    notice: FrameNotice
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class IncomingFrame:
    """A frame of exactly `notice.size` bytes; all else that is claimed of it is unchecked."""

    notice: FrameNotice
    sender: str
    """Hotkey that is said to have sent it."""
    data: bytes = field(repr=False)


class Transport(Protocol):
    """Carries frames of one run between this miner and others. Used from one event loop."""

    def hear(self, delivered: Delivered) -> None:
        """Take note of an event before the miner acts on it: it may hold URLs or addresses."""

    async def send(self, frame: OutgoingFrame, to: str) -> None:
        """Bring a frame to the hotkey `to`; returns when the far side has stored it. May be repeated.

        Raises:
            Unreachable, TransferRefused, TransportError
        """

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        """Bring a frame that `sender` has announced into `incoming`; returns when it is there.

        Raises:
            TransferRefused: it has another size than announced; refused before it is read.
            Unreachable, TransportError
        """

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        """Frames as they arrive, in any order, perhaps repeated; for one reader. Ends at `close`."""

    async def close(self) -> None:
        """End `incoming` and give up what the transport holds."""
