"""Long polls: exchanges that wait until there are events for their member."""

from __future__ import annotations

import asyncio
from enum import Enum, auto


class Woken(Enum):
    """The reason for which a poll is answered."""

    NEWS = auto()
    SUPERSEDED = auto()
    TIMEOUT = auto()


class Polls:
    """At most one waiting exchange for each hotkey; a newer one releases the older."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Woken]] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, hotkey: str, timeout_s: float) -> Woken:
        """Wait for news; the caller has seen, without an await in between, that there are none."""
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
        """Answer the member's waiting exchange without events: it has sent a newer one."""
        self._resolve(hotkey, Woken.SUPERSEDED)

    def wake(self, hotkeys: set[str]) -> None:
        """There are new events for these members."""
        for hotkey in hotkeys:
            self._resolve(hotkey, Woken.NEWS)

    def stop(self) -> None:
        """Answer everyone now, and from now on."""
        self._stopping = True
        for hotkey in list(self._waiting):
            self.supersede(hotkey)

    def _resolve(self, hotkey: str, why: Woken) -> None:
        poll = self._waiting.pop(hotkey, None)
        if poll is not None and not poll.done():
            poll.set_result(why)
