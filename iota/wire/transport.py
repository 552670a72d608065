"""The interface of transports, which carry frames between miners.

A transport moves whole frames, and each call is one try. The miner decides on retries, and checks digest,
signature and sender of arriving frames: in one place for all transports.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from iota.protocol.events import Delivered
from iota.protocol.frames import FrameNotice


class TransportError(Exception):
    """A frame was not moved. A few more tries may help: a peer that has just restarted may not be ready."""


class Unreachable(TransportError):
    """The peer or the store is down. Retry for long: it comes back by itself, or an operator restores it."""


class TransferRefused(TransportError):
    """The frame cannot be moved; retries do not help."""


@dataclass(frozen=True)
class OutgoingFrame:
    """An encoded frame to send; `data` are its bytes."""

    notice: FrameNotice
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class IncomingFrame:
    """An arrived frame of exactly `notice.size` bytes; everything else about it is unchecked."""

    notice: FrameNotice
    sender: str
    """The hotkey that claims to have sent it."""
    data: bytes = field(repr=False)


class Transport(Protocol):
    """Carries frames of one run between this miner and others. Used from one event loop."""

    def on_event(self, delivered: Delivered) -> None:
        """Learn URLs or addresses from an event, before the miner acts on it."""

    async def send(self, frame: OutgoingFrame, to: str) -> None:
        """Send a frame to the hotkey `to`; returns when it is stored there. May be repeated.

        Raises Unreachable, TransferRefused or TransportError.
        """

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        """Fetch a frame that `sender` has announced into `incoming`; returns when it is there.

        Raises TransferRefused where its size is not the announced one; Unreachable or TransportError.
        """

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        """Arrived frames in any order, possibly repeated; for one reader. Ends at `close`."""

    async def close(self) -> None:
        """End `incoming` and release the transport's resources."""
