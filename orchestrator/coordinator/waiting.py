"""Things that wait for the same limit of time: which of them are overdue, without looking at the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass
class Waiting(Generic[K]):
    """When each of some things began to wait. All wait for one limit, so the first to begin is due first.

    Times never decrease, so the order of beginning is the order of times, and no heap is needed. After a
    `restart` at a time to come nothing begins to wait before that.
    """

    _since: OrderedDict[K, float] = field(default_factory=OrderedDict)
    _earliest: float = 0.0
    """The time of the last `restart`."""

    def __contains__(self, key: K) -> bool:
        return key in self._since

    def __iter__(self) -> Iterator[K]:
        return iter(self._since)

    def __len__(self) -> int:
        return len(self._since)

    def since(self, key: K) -> float:
        """When `key` began to wait."""
        return self._since[key]

    def begin(self, key: K, now: float) -> None:
        """`key` waits from now on, also if it waited before."""
        self._since[key] = max(now, self._earliest)
        self._since.move_to_end(key)

    def end(self, key: K) -> None:
        """`key` does not wait any more, if it did."""
        self._since.pop(key, None)

    def restart(self, now: float) -> None:
        """Everything that waits begins again, at a time that may be still to come."""
        self._earliest = now
        for key in self._since:
            self._since[key] = now

    def overdue(self, now: float, limit_s: float) -> list[K]:
        """What has waited for more than `limit_s` seconds, the longest first."""
        found = []
        for key, since in self._since.items():
            if now <= since + limit_s:
                break
            found.append(key)
        return found

    def next_due(self, now: float, limit_s: float) -> float | None:
        """The first time after now at which something has waited for `limit_s` seconds, or None."""
        return next((s + limit_s for s in self._since.values() if s + limit_s > now), None)
