"""The time at which each member was last heard, in memory only."""

from __future__ import annotations

from orchestrator.coordinator import Entry, Left


class Presence:
    """Times (monotonic seconds) of members' last requests.

    A member that was not heard since this process started counts from the first question about it: the
    time that the orchestrator was away counts against nobody.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._heard: dict[str, float] = {}

    def observe(self, entry: Entry) -> None:
        """Forget a member that has left."""
        if isinstance(entry, Left):
            self._heard.pop(entry.hotkey, None)

    def hear(self, hotkey: str, now: float) -> None:
        """A request of this member came."""
        self._heard[hotkey] = now

    def overdue(self, hotkey: str, now: float) -> bool:
        """Whether the member has been silent for longer than `silence_s`."""
        return now - self._heard.setdefault(hotkey, now) > self._silence_s
