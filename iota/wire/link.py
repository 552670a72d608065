"""The interface of links, which push frames to one peer, and of the door at which frames come in.

A link moves one frame a call and asks the receiver's door before it reads the payload. Which link to take,
how long to wait and what to do when one fails is decided elsewhere (`iota.wire.chooser`), and what a frame
must be is checked by the door: in one place for all links.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Protocol

from iota.protocol.contacts import Contact
from iota.wire.transport import OutgoingFrame

MAX_HEAD: Final = 4096
"""Most bytes of a frame before its payload: prefix, header and signature."""


class LinkKind(StrEnum):
    """The ways from one miner to another."""

    DIRECT = "direct"
    """HTTP/1.1 over TCP to an address of the peer."""
    IROH = "iroh"
    """QUIC through NATs, by a relay as a last resort."""
    STORE = "store"
    """The run's object store."""


class Refusal(StrEnum):
    """Why a door does not take a frame, as it stands in a link's answer."""

    MALFORMED = "malformed"
    """No frame of this run, or not signed by its sender."""
    NOT_EXPECTED = "not-expected"
    """No op here needs it from this sender: it was given to another, it has ended, or it never was."""
    LATER = "later"
    """It came before its plan, or there is no room for it now."""
    OTHER = "other"
    """A frame of this name with other bytes is here already."""


class DoorRefused(Exception):
    """The door does not take a frame."""

    def __init__(self, why: Refusal, detail: str = "") -> None:
        super().__init__(f"{why}: {detail}" if detail else str(why))
        self.why, self.detail = why, detail


class Door(Protocol):
    """Where all links of a miner bring the frames that come in. Used from one event loop."""

    async def admit(self, head: bytes, size: int) -> bytes | None:
        """Whether a frame of `size` bytes that begins with `head` is to be read; may wait for room.

        `head` is the frame's first bytes up to its payload, at most `MAX_HEAD`. None is followed by one
        `take` or `give_up` with the same head. Else the frame is here, and this is its acknowledgement.

        Raises DoorRefused.
        """

    async def take(self, head: bytes, data: bytes | bytearray) -> bytes:
        """Check and keep an admitted frame; `data` is the whole of it.

        Returns the 64-byte acknowledgement, once the frame is on disk. Raises DoorRefused.
        """

    def give_up(self, head: bytes) -> None:
        """The rest of an admitted frame does not come."""


class Link(Protocol):
    """One way to peers. Used from one event loop."""

    kind: LinkKind

    def reaches(self, peer: Contact) -> bool:
        """Whether the peer can be dialled by this link at all."""

    async def push(self, frame: OutgoingFrame, peer: Contact) -> bytes:
        """Push a frame; returns the peer's acknowledgement, 64 bytes that the caller checks. May be repeated.

        It ends within the caller's deadline only by cancellation, which leaves nothing behind.

        Raises:
            Unreachable: the peer cannot be reached, or went away in the middle.
            TransferRefused: the peer's door does not take it (the refusal is its cause, a DoorRefused).
            TransportError: another failure.
        """

    async def close(self) -> None:
        """Stop taking frames, and release the link's resources."""
