"""What readers get: a variable, a page of them, the changes after a revision. Texts are made once for all.

`trusted` readers are members and the operator: they get everything, others what is public.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from iota.protocol.bridge import MAX_PAGE, ChangeKind, is_under
from orchestrator.bridge.bridge import Bridge
from orchestrator.bridge.variable import Change, Variable

MAX_PAGE_BYTES: Final = 256 << 10
"""Of the names and values in one page, beyond its first entry."""


@dataclass(frozen=True)
class Page:
    """Some variables, in order of name."""

    revision: int
    variables: list[Variable]
    more: bool


@dataclass(frozen=True)
class Changes:
    """Changes up to `revision`, in order; or a snapshot, which is the first page of the variables."""

    revision: int
    snapshot: bool
    more: bool
    changes: list[Change]


def find(bridge: Bridge, name: str, *, trusted: bool) -> Variable | None:
    """A variable; None where there is none, or the reader may not know of it."""
    return bridge.variables.get(name) if trusted or bridge.rights.is_public(name) else None


def page(bridge: Bridge, prefix: str, after: str = "", *, trusted: bool) -> Page:
    """The variables under a prefix from the name `after` on, exclusive: one page."""
    found: list[Variable] = []
    size = 0
    for name in bridge.names_under(prefix, after, public=not trusted):
        variable = bridge.variables[name]
        size += variable.size
        if len(found) == MAX_PAGE or (found and size > MAX_PAGE_BYTES):
            return Page(bridge.revision, found, more=True)
        found.append(variable)
    return Page(bridge.revision, found, more=False)


def changes_after(bridge: Bridge, prefix: str, revision: int | None, *, trusted: bool) -> Changes:
    """The changes under a prefix with revisions above `revision`: a page of them, but a write's all together.

    Strangers get those of variables that were public when they changed.
    None, a revision whose followers are not all kept, or one that this run has not reached: a snapshot.
    """
    if revision is None or not bridge.forgotten <= revision <= bridge.revision:
        first = page(bridge, prefix, trusted=trusted)
        as_set = [Change(v.version, ChangeKind.SET, v.name, v, True) for v in first.variables]
        return Changes(bridge.revision, True, first.more, as_set)
    found: list[Change] = []
    size, last = 0, revision
    for change in _since(bridge, revision):
        if change.revision > last and (len(found) >= MAX_PAGE or size > MAX_PAGE_BYTES):
            return Changes(last, False, True, found)
        last = change.revision
        if (trusted or change.public) and is_under(change.name, prefix):
            found.append(change)
            size += change.size
    return Changes(bridge.revision, False, False, found)


def _since(bridge: Bridge, revision: int) -> Iterator[Change]:
    """The kept changes with higher revisions, in order."""
    start = bisect_right(bridge.changes, revision, key=lambda change: change.revision)
    return islice(bridge.changes, start, None)
