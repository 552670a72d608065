"""The Bridge's state: variables by name, what changed last, and when something expires."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from iota.protocol.bridge import KNOWN_S, RUN, ChangeKind, ValueKind, WriteRule
from iota.spec import canonical_json
from orchestrator.bridge.refusals import Refusal
from orchestrator.bridge.rights import RIGHTS, Rights, RuleBook
from orchestrator.bridge.variable import Change, Variable

MAX_CHANGES: Final = 4096
"""Newest changes that are kept for watchers."""
MAX_CHANGE_BYTES: Final = 8 << 20
"""Of their values, likewise."""
MAX_DONE: Final = 1 << 18
"""Newest writes that are known when they come again: those of `KNOWN_S` at 200 a second, and more."""
MAX_VOID: Final = 1024
"""Times in the heap that have become void, beyond those that may stand."""


@dataclass(frozen=True)
class Writer:
    """Who writes: a hotkey, which is the operator's or that of a member, or neither."""

    hotkey: str
    operator: bool
    member: bool

    @property
    def owner(self) -> str:
        """The owner of what it makes."""
        return RUN if self.operator else self.hotkey


@dataclass
class Owned:
    """What one owner has."""

    variables: int = 0
    size: int = 0


@dataclass
class Bridge:
    """All variables. Times are Unix seconds of journal entries: nothing here has a clock."""

    revision: int = 0
    """Number of the last write that changed anything."""
    variables: dict[str, Variable] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """In order."""
    public: list[str] = field(default_factory=list)
    """Those that anyone may read, in order: a stranger costs no look at the others."""
    rights: RuleBook = field(default_factory=RuleBook)
    changes: deque[Change] = field(default_factory=deque)
    changes_size: int = 0
    forgotten: int = 0
    """Revision up to which changes are not kept any more."""
    due: list[tuple[float, str]] = field(default_factory=list)
    """A heap of times at which a variable or a lease may expire; some have become void."""
    done: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    """(writer, request) -> time and revision of a write that is known when it comes again, oldest first."""
    owned: dict[str, Owned] = field(default_factory=dict)
    members_size: int = 0
    """Bytes of all variables that members own."""
    outcome: int | Refusal = 0
    """What came of the newest write: its revision, or why it was refused."""

    def value(self, name: str) -> str | None:
        """The canonical JSON of a variable's value; None where there is none."""
        found = self.variables.get(name)
        return None if found is None else found.text

    def next_due(self) -> float | None:
        """When `expire` may have something to do, or None."""
        return self.due[0][0] if self.due else None

    def expire(self, now: float) -> list[str]:
        """Delete the variables, and end the leases, whose time has passed; their names."""
        revision, expired = self.revision + 1, []
        while self.due and self.due[0][0] <= now:
            _, name = heapq.heappop(self.due)
            found = self.variables.get(name)
            if found is None:
                continue
            expired.append(name)
            if found.expires is not None and found.expires <= now:
                self.put(revision, name, None, expired=True)
            elif found.lease is not None and found.lease.until <= now:
                self.put(revision, name, replace(found, lease=None))
            else:
                expired.pop()
        return expired

    def set_own(self, name: str, value: object) -> None:
        """The run itself sets a public variable, of type json."""
        revision, text = self.revision + 1, canonical_json(value).decode()
        self.put(revision, name, Variable(name, ValueKind.JSON, WriteRule.LWW, text, revision, RUN, None))

    def put(self, revision: int, name: str, variable: Variable | None, *, expired: bool = False) -> None:
        """Set a variable, or remove it (None), as part of the write with this number."""
        gone = ChangeKind.EXPIRED if expired else ChangeKind.DELETED
        before = self.variables.pop(name, None)
        if before is not None:
            self._count(before, -1)
        public = self.rights.is_public(name)
        if variable is None:
            _remove(self.names, name)
            _remove(self.public, name)
        else:
            self.variables[name] = variable
            self._count(variable, 1)
            if before is None:
                insort(self.names, name)
                if public:
                    insort(self.public, name)
            ends = (variable.expires, None if variable.lease is None else variable.lease.until)
            for end in ends:
                if end is not None:
                    heapq.heappush(self.due, (end, name))
            if len(self.due) > 2 * len(self.variables) + MAX_VOID:
                self._drop_void()
        self._rule(name, variable)
        self.revision = revision
        kind = gone if variable is None else ChangeKind.SET
        self._remember(Change(revision, kind, name, variable, public))

    def note_done(self, writer: str, request: str, now: float) -> None:
        """Remember the newest write, so that it is known when it comes again; forget those of long ago."""
        self.done[writer, request] = now, self.revision
        oldest = next(iter(self.done))
        while self.done[oldest][0] < now - KNOWN_S or len(self.done) > MAX_DONE:
            del self.done[oldest]
            oldest = next(iter(self.done))

    def known(self, writer: str, request: str) -> int | None:
        """The revision of a write that was done before, or None."""
        found = self.done.get((writer, request))
        return None if found is None else found[1]

    def names_under(self, prefix: str, after: str = "", *, public: bool = False) -> Iterator[str]:
        """The names under a prefix that come after the name `after`, in order; all, or the public ones."""
        names = self.public if public else self.names
        if prefix > after and (at := bisect_left(names, prefix)) < len(names) and names[at] == prefix:
            yield prefix
        low, high = (f"{prefix}/", f"{prefix}0") if prefix else ("", "\x7f")  # "0" follows "/"
        at = bisect_left(names, max(low, f"{after}\0"))
        while at < len(names) and names[at] < high:
            yield names[at]
            at += 1

    def _drop_void(self) -> None:
        stand = [(v.expires, v.name) for v in self.variables.values() if v.expires is not None]
        stand += [(v.lease.until, v.name) for v in self.variables.values() if v.lease is not None]
        self.due = sorted(stand)

    def _count(self, variable: Variable, sign: int) -> None:
        owned = self.owned.setdefault(variable.owner, Owned())
        owned.variables += sign
        owned.size += sign * variable.size
        if variable.owner != RUN:
            self.members_size += sign * variable.size
        if not owned.variables:
            del self.owned[variable.owner]

    def _rule(self, name: str, variable: Variable | None) -> None:
        prefix = name.removeprefix(f"{RIGHTS}/")
        if prefix == name:
            return
        self.rights.rules.pop(prefix, None)
        if variable is not None:
            self.rights.rules[prefix] = Rights.model_validate_json(variable.text)
        for name in list(self.names_under(prefix)):
            _remove(self.public, name)
            if self.rights.is_public(name):
                insort(self.public, name)

    def _remember(self, change: Change) -> None:
        """Keep a change, and forget the oldest beyond the bounds: a write's changes all or none."""
        self.changes.append(change)
        self.changes_size += change.size
        while len(self.changes) > MAX_CHANGES or self.changes_size > MAX_CHANGE_BYTES:
            self.forgotten = self.changes[0].revision
            while self.changes and self.changes[0].revision == self.forgotten:
                self.changes_size -= self.changes.popleft().size


def _remove(names: list[str], name: str) -> None:
    """Take a name out of a list in order, if it is there."""
    at = bisect_left(names, name)
    if at < len(names) and names[at] == name:
        del names[at]
