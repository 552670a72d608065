"""Moves frames for the core: tries again while one is wanted, and checks what arrives."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from blake3 import blake3

from iota.protocol.messages import MAX_REASON, FrameNotice
from iota.spec import RunSpec
from iota.wire.frame import Frame, FrameError, decode_frame
from iota.wire.transport import IncomingFrame, Transport, TransportError
from miner.activity import Activity
from miner.core.effects import FetchFrame, SendFrame
from miner.core.facts import FrameLost, FrameNotStored, FrameStored
from miner.retry import FIRST_PAUSE_S, NotWanted, persist

log = logging.getLogger(__name__)


@dataclass
class FrameMover:
    spec: RunSpec
    transport: Transport
    wants: Callable[[SendFrame | FetchFrame], bool]
    activity: Activity
    first_pause_s: float = FIRST_PAUSE_S

    async def send(self, effect: SendFrame) -> FrameStored | FrameNotStored:
        """Store a frame: whatever the transport does, until nobody waits for it."""
        notice = effect.frame.notice
        try:
            await self._move("storing", effect, notice, lambda: self.transport.send(effect.frame, effect.to))
        except TransportError as error:
            # A microbatch that has ended, or an object that the store will never take.
            log.error("frame %s could not be stored: %s", notice.name, error)
        except NotWanted:
            pass
        else:
            return FrameStored(notice)
        return FrameNotStored(notice.name)

    async def fetch(self, effect: FetchFrame) -> FrameLost | None:
        """Bring an announced frame into the transport's stream; None when it is there or not wanted."""
        notice = effect.notice
        try:
            await self._move("fetching", effect, notice, lambda: self.transport.fetch(notice, effect.sender))
        except TransportError as error:
            return lost(effect, error)
        except NotWanted:
            pass
        return None

    async def _move(
        self,
        doing: str,
        effect: SendFrame | FetchFrame,
        notice: FrameNotice,
        move: Callable[[], Awaitable[None]],
    ) -> None:
        """Move one frame, in as many tries as it takes. Raises TransportError, NotWanted."""

        async def attempt(again: bool) -> None:
            started = time.perf_counter()
            await move()
            self.activity.transfer_s += time.perf_counter() - started

        await persist(
            f"{doing} frame {notice.name}",
            attempt,
            wanted=lambda: self.wants(effect),
            first_pause_s=self.first_pause_s,
        )

    def checked(self, frame: IncomingFrame) -> Frame:
        """The frame, if it is the one that its announcement names. Raises FrameError."""
        if blake3(frame.data).hexdigest() != frame.notice.digest:
            raise FrameError("not the bytes that were announced")
        found = decode_frame(frame.data, self.spec)
        if found.header.name != frame.notice.name or found.header.sender != frame.sender:
            raise FrameError("another frame, or another sender, than was announced")
        return found


def lost(frame: IncomingFrame | FetchFrame, error: Exception) -> FrameLost:
    """The fact of a frame that cannot be used, with the reason in the log too."""
    name = frame.notice.name
    log.warning("frame %s cannot be used: %s", name, error)
    return FrameLost(name, f"{type(error).__name__}: {error}"[:MAX_REASON])
