"""What a member has said before, so that a repeated exchange is not journaled again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from iota.protocol.messages import FrameNotice, Report, ReportKind
from orchestrator.coordinator import Back, Entry, Joined, Left, Lost

REMEMBERED: Final = 1024
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

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._said: dict[str, OrderedDict[str, None]] = {}

    def observe(self, entry: Entry) -> None:
        """Keep up with the journal: what was said before a loss or a start may have to be taken again."""
        if isinstance(entry, Joined | Left | Lost | Back):
            self._said.pop(entry.hotkey, None)

    def fresh_frames(self, hotkey: str, frames: Iterable[FrameNotice]) -> tuple[FrameNotice, ...]:
        said = self._said.get(hotkey, ())
        return tuple(notice for notice in frames if notice.content_digest() not in said)

    def fresh_reports(self, hotkey: str, reports: Iterable[Report]) -> tuple[Report, ...]:
        said = self._said.get(hotkey, ())
        return tuple(r for r in reports if r.kind not in _ONCE or r.content_digest() not in said)

    def remember(self, hotkey: str, news: Iterable[FrameNotice | Report]) -> None:
        """This news is recorded."""
        said = self._said.setdefault(hotkey, OrderedDict())
        for item in news:
            if isinstance(item, FrameNotice) or item.kind in _ONCE:
                digest = item.content_digest()
                said[digest] = None
                said.move_to_end(digest)
        while len(said) > self._most:
            said.popitem(last=False)
