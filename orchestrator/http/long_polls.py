"""Long polling: exchanges that wait until there are events for their member."""

from __future__ import annotations

import asyncio
from enum import Enum, auto


class Woken(Enum):
    """Why a waiting exchange is answered."""

    EVENTS = auto()
    SUPERSEDED = auto()
    TIMEOUT = auto()


class Polls:
    """The waiting exchange of each hotkey. There is at most one: a newer one ends the older one's wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Woken]] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, hotkey: str, timeout_s: float) -> Woken:
        """Wait for events. The caller must have checked, without an await since, that there are none yet."""
        if self._stopping:
            return Woken.SUPERSEDED
        self.supersede(hotkey)
        poll: asyncio.Future[Woken] = asyncio.get_running_loop().create_future()
        self._waiting[hotkey] = poll
        try:
            async with asyncio.timeout(timeout_s):
                return await poll
        except TimeoutError:
            return Woken.TIMEOUT
        finally:
            if self._waiting.get(hotkey) is poll:
                del self._waiting[hotkey]

    def supersede(self, hotkey: str) -> None:
        """End the wait of the member's exchange without events, because it has sent a newer one."""
        self._resolve(hotkey, Woken.SUPERSEDED)

    def wake(self, hotkeys: set[str]) -> None:
        """End the waits of these members, for which there are new events."""
        for hotkey in hotkeys:
            self._resolve(hotkey, Woken.EVENTS)

    def stop(self) -> None:
        """End all waits, and let no later one begin: the server is shutting down."""
        self._stopping = True
        for hotkey in list(self._waiting):
            self.supersede(hotkey)

    def _resolve(self, hotkey: str, why: Woken) -> None:
        poll = self._waiting.pop(hotkey, None)
        if poll is not None and not poll.done():
            poll.set_result(why)
