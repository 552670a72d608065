"""Open exchanges: who waits for news, who is silent."""

from __future__ import annotations

import asyncio
from enum import Enum, auto

from orchestrator.coordinator import Back, Entry, Joined, Left, Lost


class Woken(Enum):
    """Why a poll is answered."""

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
        self._resolve(hotkey, Woken.SUPERSEDED)

    def wake(self, hotkeys: set[str]) -> None:
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


class Presence:
    """When each member was last heard (monotonic seconds), and who is counted as lost."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._heard: dict[str, float] = {}
        self.lost: set[str] = set()

    def observe(self, entry: Entry) -> None:
        """Keep up with the journal."""
        match entry:
            case Lost():
                self.lost.add(entry.hotkey)
            case Joined() | Back():
                self.lost.discard(entry.hotkey)
            case Left():
                self.lost.discard(entry.hotkey)
                self._heard.pop(entry.hotkey, None)

    def hear(self, hotkey: str, now: float) -> None:
        self._heard[hotkey] = now

    def overdue(self, hotkey: str, now: float) -> bool:
        """Whether a member that should be heard was not; one never heard of counts from now."""
        if hotkey in self.lost:
            return False
        return now - self._heard.setdefault(hotkey, now) > self._silence_s
