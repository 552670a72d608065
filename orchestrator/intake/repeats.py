"""Recognises what a member said before, so that a repeated exchange is not journaled again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cachetools import LRUCache

from iota.protocol.messages import FrameNotice, Report, ReportKind
from orchestrator.coordinator import Back, Entry, Joined, Left, Lost, Said

MAX_REMEMBERED: Final = 1024
"""Digests for each member; one that was forgotten is journaled again, and changes nothing."""
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
"""Reports that say nothing new the second time. Others may, as the run goes on."""


class Repeats:
    """The digests of each member's last news; in memory only, and forgotten when a member starts again."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._said: dict[str, LRUCache[str, None]] = {}

    def observe(self, entry: Entry) -> None:
        """Keep up with the journal: news from before a loss or a start may have to be taken again."""
        match entry:
            case Joined() | Left() | Lost() | Back():
                self._said.pop(entry.hotkey, None)
            case Said():
                once = (report for report in entry.reports if report.kind in _ONCE)
                self._remember(entry.hotkey, (*entry.frames, *once))
            case _:
                pass

    def fresh_frames(self, hotkey: str, frames: Iterable[FrameNotice]) -> tuple[FrameNotice, ...]:
        """The notices that the member has not said yet."""
        said = self._said.get(hotkey, ())
        return tuple(notice for notice in frames if notice.content_digest() not in said)

    def fresh_reports(self, hotkey: str, reports: Iterable[Report]) -> tuple[Report, ...]:
        """The reports that the member has not said yet, or that may be said again."""
        said = self._said.get(hotkey, ())
        return tuple(r for r in reports if r.kind not in _ONCE or r.content_digest() not in said)

    def _remember(self, hotkey: str, news: Iterable[FrameNotice | Report]) -> None:
        said = self._said.setdefault(hotkey, LRUCache(self._limit))
        for item in news:
            said[item.content_digest()] = None
