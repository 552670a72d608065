"""Deduplication: recognises repeated reports, so that they are not journaled again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cachetools import LRUCache

from iota.protocol.messages import Report, ReportKind
from orchestrator.coordinator import Entry, Exchanged, Joined, Left, Lost, Returned

MAX_REMEMBERED: Final = 256
"""Digests kept for each member. A forgotten item is journaled again, which changes no state."""
_ONCE: Final = frozenset(
    {
        ReportKind.DELTA,
        ReportKind.MERGED,
        ReportKind.SNAPSHOT,
        ReportKind.VERDICT,
        ReportKind.AUDITS_DONE,
        ReportKind.HELDOUT,
        ReportKind.WEIGHTS,
    }
)
"""Reports that have no effect when repeated. The effect of others depends on the state of the run."""


class Repeats:
    """Digests of each member's newest reports, in memory only."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._said: dict[str, LRUCache[str, None]] = {}

    def observe(self, entry: Entry) -> None:
        """Remember what an entry contains. After a join or a loss, repeated content may have an effect."""
        match entry:
            case Joined() | Left() | Lost() | Returned():
                self._said.pop(entry.hotkey, None)
            case Exchanged():
                self._remember(entry.hotkey, [r for r in entry.reports if r.kind in _ONCE])
            case _:
                pass

    def fresh_reports(self, hotkey: str, reports: Iterable[Report]) -> tuple[Report, ...]:
        """The reports that the member has not sent before, or that may have an effect again."""
        said = self._said.get(hotkey, ())
        return tuple(r for r in reports if r.kind not in _ONCE or r.content_digest() not in said)

    def _remember(self, hotkey: str, reports: Sequence[Report]) -> None:
        if reports:
            said = self._said.setdefault(hotkey, LRUCache(self._limit))
            said.update((report.content_digest(), None) for report in reports)
