"""Frames on a miner's disk: the received ones as they arrived, and those that it has sent. Everything blocks.

The first frame of a name stands, also after a restart: a receipt may name it already. Only one that was
denied, or that this disk has damaged, is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

from blake3 import blake3
from torch import Tensor

from iota.codec.wire_dtype import payload_tensor
from iota.files import write_whole
from iota.protocol.frames import FrameName, FrameNotice
from iota.protocol.receipts import SignedHeader
from iota.spec import RunSpec
from iota.wire.frame import CheckedFrame, FrameError, check_frame
from iota.wire.transport import IncomingFrame, OutgoingFrame

log = logging.getLogger(__name__)

_LOCKS: Final = 16
"""Frames of one name are written one after another."""


@dataclass(frozen=True)
class OpInput:
    """A frame as its op reads it."""

    name: FrameName
    digest: str
    """Of the whole frame, as it lies on this disk."""
    signed_header: SignedHeader
    payload_N: Tensor
    """The payload on the host, in memory of its own."""

    @classmethod
    def of(cls, frame: CheckedFrame, digest: str) -> OpInput:
        """Copies the payload to where a device can read it: whatever is left to do then is launching."""
        return cls(frame.header.name, digest, frame.signed_header, payload_tensor(frame.payload))


@dataclass
class KeptFrames:
    """The frames on one disk. May be used by several threads."""

    spec: RunSpec
    file: Callable[[FrameName], Path]
    """Of a sent or received frame."""
    _denied: set[FrameName] = field(default_factory=set)
    _locks: tuple[Lock, ...] = field(default_factory=lambda: tuple(Lock() for _ in range(_LOCKS)))

    def check(self, arrived: IncomingFrame) -> CheckedFrame:
        """The frame that has arrived: of the announced digest and name, whole, and signed by its sender.

        The digest of a pushed one was made of these bytes. Raises FrameError.
        """
        if not arrived.pushed and blake3(arrived.data).hexdigest() != arrived.notice.digest:
            raise FrameError("not the bytes that were announced")
        found = check_frame(arrived.data, self.spec)
        if found.header.name != arrived.notice.name or found.header.sender != arrived.sender:
            raise FrameError("another frame, or another sender, than was announced")
        return found

    def keep(self, frame: CheckedFrame, digest: str) -> OpInput:
        """Write a checked frame as it is, unless one of its name and sender stands, which is returned.

        Raises OSError: the disk is full.
        """
        name = frame.header.name
        path = self.file(name)
        with self._locks[hash(name) % _LOCKS]:
            if name not in self._denied and (first := self.find(name, frame.header.sender)) is not None:
                return first
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, frame.data)
            self._denied.discard(name)
        return OpInput.of(frame, digest)

    def find(self, name: FrameName, sender: str) -> OpInput | None:
        """The intact frame of this name that `sender` has signed; None if there is none."""
        try:
            data = self.file(name).read_bytes()
            frame = check_frame(data, self.spec)
        except FileNotFoundError:
            return None
        except (OSError, FrameError) as error:
            log.warning("frame %s on this disk is damaged: %s", name, error)
            return None
        if (frame.header.name, frame.header.sender) != (name, sender):
            return None
        return OpInput.of(frame, blake3(data).hexdigest())

    def has(self, frame: CheckedFrame) -> bool:
        """Whether just these bytes are here, under the frame's name."""
        try:
            return self.file(frame.header.name).read_bytes() == frame.data
        except OSError:
            return False

    def deny(self, name: FrameName) -> None:
        """The next frame of this name replaces the one that is here."""
        self._denied.add(name)

    def sent(self, name: FrameName) -> OutgoingFrame:
        """A frame that this miner has made, as it is on this disk. Raises OSError or FrameError."""
        data = self.file(name).read_bytes()
        check_frame(data, self.spec)
        return OutgoingFrame(FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data)), data)
