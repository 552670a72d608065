"""The time of each member's last request, in memory only."""

from __future__ import annotations

from orchestrator.coordinator import Entry, Left, Revoked


class Presence:
    """Times (monotonic seconds) of members' last requests.

    For a member without a request since this process started, silence counts from the first call of
    `overdue`: it could not send any while the orchestrator was down.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._last: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def observe(self, entry: Entry) -> None:
        """Forget a member when it leaves, or is revoked."""
        if isinstance(entry, Left | Revoked):
            gone = entry.hotkey if isinstance(entry, Left) else entry.revocation.worker
            self._last.pop(gone, None)
            self._since.pop(gone, None)

    def note(self, hotkey: str, now: float) -> None:
        """Record a request of this member."""
        self._last[hotkey] = now

    def overdue(self, hotkey: str, now: float) -> bool:
        """Whether the member has been silent for longer than `silence_s`."""
        last = self._last.get(hotkey)
        since = self._since.setdefault(hotkey, now) if last is None else last
        return now - since > self._silence_s

    def silent_s(self, hotkey: str, now: float) -> float | None:
        """Seconds since the member's last request; None if none has come to this process."""
        last = self._last.get(hotkey)
        return None if last is None else now - last
