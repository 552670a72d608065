"""The time of each member's last request, in memory only."""

from __future__ import annotations

from orchestrator.coordinator import Entry, Left


class Presence:
    """Times (monotonic seconds) of members' last requests.

    For a member without a request since this process started, silence counts from the first call of
    `overdue`: it could not send any while the orchestrator was down.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._last: dict[str, float] = {}

    def observe(self, entry: Entry) -> None:
        """Forget a member when it leaves."""
        if isinstance(entry, Left):
            self._last.pop(entry.hotkey, None)

    def note(self, hotkey: str, now: float) -> None:
        """Record a request of this member."""
        self._last[hotkey] = now

    def overdue(self, hotkey: str, now: float) -> bool:
        """Whether the member has been silent for longer than `silence_s`."""
        return now - self._last.setdefault(hotkey, now) > self._silence_s
