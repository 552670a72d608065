"""The points of a merge in the orchestrator."""

from __future__ import annotations

from typing import Any

from iota.protocol.messages import BaseStored, Delta, Merged, Ready
from orchestrator.coordinator import Coordinator, Entry, Exchanged, Remerged
from orchestrator.coordinator.state import RunState
from orchestrator.http.base_checker import BaseChecker
from orchestrator.http.copy_reader import CopyReader
from orchestrator.http.recorder import Recorder
from orchestrator.http.remerger import Remerger
from tests.support.held_process import Post, after_awaiting, before_awaiting
from tests.support.merge_points import Point


def install(post: Post) -> None:
    """Hold this process at its points, but for those that it comes to while it replays its journal."""
    _entries(post)
    before_awaiting(CopyReader, "read", lambda _, copy: post.reach(Point.COPY_DUE, copy.epoch, copy.merger))
    after_awaiting(
        CopyReader, "read", lambda found, _, copy: post.reach(Point.COPY_READ, copy.epoch, copy.merger)
    )
    before_awaiting(
        BaseChecker, "_check", lambda _, who, base: post.reach(Point.BASE_DUE, base.epoch - 1, who)
    )
    before_awaiting(
        BaseChecker, "_record", lambda _, who, base: post.reach(Point.BASE_READ, base.epoch - 1, who)
    )
    before_awaiting(Remerger, "_merge", lambda _, assign: post.reach(Point.DISPUTED, assign.epoch))
    after_awaiting(Remerger, "_merge", lambda found, _, assign: post.reach(Point.REMERGED, assign.epoch))
    after_awaiting(Remerger, "made", lambda made, *_: post.reach(Point.REMERGE_STORED, made.epoch))


def _entries(post: Post) -> None:
    apply, restore, live = Recorder._apply, Recorder.restore, [False]

    def restored(self: Recorder) -> int:
        count = restore(self)
        live[0] = True
        post.recovered()
        return count

    def applied(self: Recorder, entry: Entry) -> None:
        if not live[0]:
            return apply(self, entry)
        coordinator: Coordinator = self._coordinator
        for epoch, hotkey in _reported(entry, Delta):
            post.reach(Point.DELTA_JOURNALED, epoch, hotkey)
        before = _passed(coordinator.state)
        apply(self, entry)
        for point, epoch in _passed(coordinator.state) - before:
            post.reach(point, epoch)
        said = (
            (Merged, Point.COPY_TAKEN, 0),
            (Ready, Point.READY_TAKEN, 1),
            (BaseStored, Point.BASE_RECORDED, 1),
        )
        for kind, point, ahead in said:
            for epoch, hotkey in _reported(entry, kind):
                post.reach(point, epoch - ahead, hotkey)
        if isinstance(entry, Remerged):
            post.reach(Point.SETTLED, entry.epoch)

    Recorder._apply, Recorder.restore = applied, restored  # type: ignore[method-assign]


def _reported(entry: Entry, kind: type[Any]) -> list[tuple[int, str]]:
    """(epoch, hotkey) of the reports of a kind in an entry."""
    if not isinstance(entry, Exchanged):
        return []
    return [(report.epoch, entry.hotkey) for report in entry.reports if isinstance(report, kind)]


def _passed(run: RunState) -> set[tuple[Point, int]]:
    """The points of newer epochs that the run has passed."""
    found = {(Point.BEGUN, run.epoch - 1), (Point.SEALED, run.audits.sealed - 1)}
    number = run.epoch if run.merging is None else run.merging
    merges = run.epochs[number].merges
    if any(merge.parts for merge in merges):
        found.add((Point.DRAWN, number))
    if any(merge.ready for merge in merges):
        found.add((Point.PUBLISHED, number))
    return found
