"""Sends and fetches frames, with retries while the core wants them, and checks those that arrive."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from iota.files import write_whole
from iota.protocol.frames import FrameName, FrameNotice
from iota.protocol.messages import MAX_REASON
from iota.spec import RunSpec
from iota.wire.frame import Frame, FrameError, decode_frame
from iota.wire.transport import IncomingFrame, OutgoingFrame, Transport, TransportError
from miner.activity import Activity
from miner.core.effects import FetchFrame, SendAgain, SendFrame
from miner.core.facts import FrameLost, FrameNotStored, FrameStored
from miner.retry import FIRST_PAUSE_S, NotWanted, persist

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class FrameMover:
    """The core's frame effects over one transport. `wants` says whether a frame still deserves a try."""

    spec: RunSpec
    transport: Transport
    wants: Callable[[SendFrame | FetchFrame], bool]
    activity: Activity
    kept: Callable[[FrameName], Path]
    """The file of a sent or received frame on this disk."""
    first_pause_s: float = FIRST_PAUSE_S

    async def send(self, effect: SendFrame) -> FrameStored | FrameNotStored:
        """Store a frame for its receiver, retried through outages while it is wanted."""
        notice, move = effect.frame.notice, partial(self.transport.send, effect.frame, effect.to)
        try:
            said = await self._move(f"storing frame {notice.name}", effect, move)
        except TransportError as error:
            # The microbatch has ended, or the store refuses this object for good.
            log.error("frame %s could not be stored: %s", notice.name, error)
        except NotWanted:
            pass
        else:
            self.activity.sent_bytes += notice.size
            return FrameStored(said)
        return FrameNotStored(notice.name)

    async def send_again(self, effect: SendAgain) -> FrameStored | FrameNotStored:
        """Store a sent frame again, as it was kept on this disk."""
        try:
            data = await asyncio.to_thread(self.kept(effect.name).read_bytes)
            receiver = decode_frame(data, self.spec).header.receiver
        except (OSError, FrameError) as error:
            log.error("frame %s is missing in the store, and cannot be sent again: %s", effect.name, error)
            return FrameNotStored(effect.name)
        notice = FrameNotice(name=effect.name, digest=blake3(data).hexdigest(), size=len(data))
        return await self.send(SendFrame(OutgoingFrame(notice, data), receiver))

    async def fetch(self, effect: FetchFrame) -> FrameLost | None:
        """Have the transport fetch an announced frame; it then comes out of `Transport.incoming`.

        None if it was fetched or is no longer wanted.
        """
        notice, move = effect.notice, partial(self.transport.fetch, effect.notice, effect.sender)
        try:
            await self._move(f"fetching frame {notice.name}", effect, move)
        except TransportError as error:
            return lost(effect, error)
        except NotWanted:
            pass
        else:
            self.activity.received_bytes += notice.size
        return None

    async def keep(self, arrived: IncomingFrame) -> Frame:
        """Check a frame that has arrived, and keep it on disk as it is, for audits of the op that reads it.

        The first frame of a name stands, also after a restart: a receipt may name it already. One that is
        sent again, with other content perhaps, is answered with that first one.

        Raises:
            FrameError: it is not what was announced.
            OSError: the disk is full.
        """
        frame = self._checked(arrived)
        if not self.wants(FetchFrame(arrived.notice, arrived.sender)):
            return frame  # no op reads it any more
        return await asyncio.to_thread(self._keep, arrived.data, frame)

    def _keep(self, data: bytes, frame: Frame) -> Frame:
        path, header = self.kept(frame.header.name), frame.header
        try:
            first = decode_frame(path.read_bytes(), self.spec)
            if (first.header.name, first.header.sender) == (header.name, header.sender):
                return first
        except FileNotFoundError:
            pass
        except FrameError as error:
            log.warning("frame %s on this disk is damaged and is replaced: %s", header.name, error)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        return frame

    async def _move(self, what: str, effect: SendFrame | FetchFrame, move: Callable[[], Awaitable[T]]) -> T:
        """Move one frame, with retries. Raises TransportError if that is hopeless, NotWanted."""

        async def attempt(again: bool) -> T:
            started = time.perf_counter()
            moved = await move()
            self.activity.transfer_s += time.perf_counter() - started
            return moved

        wanted = partial(self.wants, effect)
        return await persist(what, attempt, wanted=wanted, first_pause_s=self.first_pause_s)

    def _checked(self, frame: IncomingFrame) -> Frame:
        """Decode a frame and check its signature, values, digest, name and sender. Raises FrameError."""
        if blake3(frame.data).hexdigest() != frame.notice.digest:
            raise FrameError("not the bytes that were announced")
        found = decode_frame(frame.data, self.spec)
        if found.header.name != frame.notice.name or found.header.sender != frame.sender:
            raise FrameError("another frame, or another sender, than was announced")
        return found


def lost(frame: IncomingFrame | FetchFrame, error: Exception) -> FrameLost:
    """Log why a frame cannot be used, and give the fact for the core."""
    name = frame.notice.name
    log.warning("frame %s cannot be used: %s", name, error)
    return FrameLost(name, f"{type(error).__name__}: {error}"[:MAX_REASON])
