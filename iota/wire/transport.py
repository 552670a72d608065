"""The interface of transports, which carry frames between miners.

A transport moves whole frames, and each call is one try. The miner decides on retries, and checks digest,
signature and sender of arriving frames: in one place for all transports.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from iota.protocol.events import Delivered
from iota.protocol.frames import FrameNotice
from iota.wire.expectation import EarliestStep, Expects

Settle = Callable[[str | None], None]
"""Takes None when a frame is checked and on disk, else the reason why it cannot be kept."""


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
    data: bytes | bytearray = field(repr=False)
    pushed: bool = False
    """Whether its sender pushed it over a link: no event names it, and its notice is made of its bytes."""
    settle: Settle = field(default=lambda reason: None, repr=False, compare=False)
    """Called once by the miner. The transport of a pushed frame acknowledges it then, or says why not."""


class Transport(Protocol):
    """Carries frames of one run between this miner and others. Used from one event loop."""

    def on_event(self, delivered: Delivered) -> None:
        """Learn URLs or addresses from an event, before the miner acts on it."""

    def listen_for(self, expects: Expects, earliest_step: EarliestStep) -> None:
        """Take pushed frames from now on: those of which `expects` says so. Called once, at first."""

    def expectations_changed(self) -> None:
        """An event was taken after which `expects` may say something else of a frame that waits."""

    async def send(self, frame: OutgoingFrame, to: str) -> FrameNotice:
        """Send a frame to the hotkey `to`, by whatever way is best. May be repeated.

        Returns the notice to say, when the frame lies in the object store (the frame's own notice), or on the
        receiver's disk (with `kept`).

        Raises Unreachable, TransferRefused or TransportError.
        """

    async def store(self, frame: OutgoingFrame) -> FrameNotice:
        """Put a frame into the object store, whatever else is possible. Returns and raises as `send`."""

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        """Fetch a frame that `sender` has announced into `incoming`; returns when it is there.

        Raises TransferRefused where its size is not the announced one; Unreachable or TransportError.
        """

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        """Arrived frames in any order, possibly repeated; for one reader. Ends at `close`."""

    async def close(self) -> None:
        """End `incoming` and release the transport's resources."""
