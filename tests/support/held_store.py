"""The points of a merge in the embedded store."""

from __future__ import annotations

from typing import Final

from iota.objects import BaseKey, DeltaKey, MergedKey, parse_key
from iota.store.files import Upload
from tests.support.held_process import Post
from tests.support.merge_points import Point

_POINTS: Final[dict[type, tuple[Point, Point, int]]] = {
    DeltaKey: (Point.DELTA_WRITTEN, Point.DELTA_LINKED, 0),
    MergedKey: (Point.MERGED_WRITTEN, Point.MERGED_LINKED, 0),
    BaseKey: (Point.BASE_WRITTEN, Point.BASE_LINKED, 1),
}
"""By kind of object: before and after its link, and by how much its epoch is ahead of the merge's."""


def install(post: Post) -> None:
    """Hold this process at its points."""
    finish = Upload.finish

    def held(self: Upload) -> None:
        key = parse_key(self._key)
        written, linked, ahead = _POINTS.get(type(key), (None, None, 0))
        if not isinstance(key, DeltaKey | MergedKey | BaseKey) or written is None or linked is None:
            return finish(self)
        post.reach(written, key.epoch - ahead, key.hotkey)
        finish(self)
        post.reach(linked, key.epoch - ahead, key.hotkey)

    Upload.finish = held  # type: ignore[method-assign]
