"""Sends and fetches frames, with retries while the core wants them, and keeps those that arrive."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from iota.protocol.frames import FrameName, FrameNotice
from iota.protocol.messages import MAX_REASON
from iota.wire.expectation import Expectation, Expects
from iota.wire.frame import FrameError
from iota.wire.transport import IncomingFrame, OutgoingFrame, Transport, TransportError
from miner.activity import Activity
from miner.core.effects import FetchFrame, ResendFrame, SendAgain, SendFrame, Sending
from miner.core.facts import FrameArrived, FrameLost, FrameNotStored, FrameStored, Pushed
from miner.kept_frames import KeptFrames, OpInput
from miner.retry import FIRST_PAUSE_S, NotWanted, persist

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class FrameMover:
    """The core's frame effects over one transport."""

    transport: Transport
    wants: Callable[[Sending | FetchFrame], bool]
    """Whether a frame still deserves a try."""
    expects: Expects
    kept: KeptFrames
    activity: Activity
    first_pause_s: float = FIRST_PAUSE_S

    async def send(self, effect: SendFrame) -> FrameStored | FrameNotStored:
        """Send a frame to its receiver, retried through outages while it is wanted."""
        return await self._send(effect, effect.frame, partial(self.transport.send, effect.frame, effect.to))

    async def send_kept(self, effect: ResendFrame | SendAgain) -> FrameStored | FrameNotStored:
        """Send a frame to another receiver, or store it, as it was kept on this disk."""
        try:
            frame = await asyncio.to_thread(self.kept.sent, effect.name)
        except (OSError, FrameError) as error:
            log.error("frame %s cannot be sent again: %s", effect.name, error)
            return FrameNotStored(effect.name)
        if isinstance(effect, ResendFrame):
            return await self._send(effect, frame, partial(self.transport.send, frame, effect.to))
        return await self._send(effect, frame, partial(self.transport.store, frame))

    async def _send(
        self, effect: Sending, frame: OutgoingFrame, move: Callable[[], Awaitable[FrameNotice]]
    ) -> FrameStored | FrameNotStored:
        notice = frame.notice
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

    async def fetch(self, effect: FetchFrame) -> FrameLost | None:
        """Have the transport fetch an announced frame; it then comes out of `Transport.incoming`.

        None if it was fetched or is no longer wanted.
        """
        notice, move = effect.notice, partial(self.transport.fetch, effect.notice, effect.sender)
        try:
            await self._move(f"fetching frame {notice.name}", effect, move)
        except TransportError as error:
            return _lost(notice.name, error)
        except NotWanted:
            pass
        return None

    async def keep(self, arrived: IncomingFrame) -> tuple[FrameArrived, OpInput] | FrameLost | None:
        """Check a frame that has arrived, keep it on disk as it is, and settle it.

        None for one that nothing here needs. Raises OSError: the disk is full.
        """
        notice = arrived.notice
        self.activity.received_bytes += notice.size
        try:
            frame = await asyncio.to_thread(self.kept.check, arrived)
        except FrameError as error:
            arrived.settle(str(error))
            return None if arrived.pushed else _lost(notice.name, error)  # nobody has announced a pushed one
        if arrived.pushed:
            expected = self.expects(frame.header)
            if expected is not Expectation.EXPECTED:
                # What it acknowledged already it acknowledges again: the sender may not have heard it.
                here = expected is Expectation.OVER and await asyncio.to_thread(self.kept.has, frame)
                arrived.settle(None if here else f"it is {expected}")
                return None
        elif not self.wants(FetchFrame(notice, arrived.sender)):
            return None
        try:
            found = await asyncio.to_thread(self.kept.keep, frame, notice.digest)
        except OSError:
            arrived.settle("this disk does not take it")
            raise
        same = found.digest == notice.digest
        arrived.settle(None if same else "another frame of its name is here")
        from_store = same and not arrived.pushed
        return FrameArrived(notice.name, None if from_store else Pushed(arrived.sender, found.digest)), found

    async def find(self, name: FrameName, sender: str) -> tuple[FrameArrived, OpInput] | None:
        """A frame of before that is on this disk, as an input of its op."""
        found = await asyncio.to_thread(self.kept.find, name, sender)
        return None if found is None else (FrameArrived(name, Pushed(sender, found.digest)), found)

    async def _move(self, what: str, effect: Sending | FetchFrame, move: Callable[[], Awaitable[T]]) -> T:
        """Move one frame, with retries. Raises TransportError if that is hopeless, NotWanted."""

        async def attempt(again: bool) -> T:
            started = time.perf_counter()
            moved = await move()
            self.activity.transfer_s += time.perf_counter() - started
            return moved

        wanted = partial(self.wants, effect)
        return await persist(what, attempt, wanted=wanted, first_pause_s=self.first_pause_s)


def _lost(name: FrameName, error: Exception) -> FrameLost:
    """Log why a frame cannot be used, and give the fact for the core."""
    log.warning("frame %s cannot be used: %s", name, error)
    return FrameLost(name, f"{type(error).__name__}: {error}"[:MAX_REASON])
