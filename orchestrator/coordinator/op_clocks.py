"""The deadlines of ops: which replicas are past theirs, without looking at the others."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestrator.coordinator.adaptive_deadline import AdaptiveDeadline
from orchestrator.coordinator.member import Member, PendingKey

OWN_TIMES: Final = 4
"""A replica is not late before so many times what an op takes it as a rule: a neighbour that answers at once
shortens the stage's limit, and must not make an honest one late."""
STAGE_TIMES: Final = 8
"""The most of that, in limits of the stage: nobody may be slow without end."""

_Entry = tuple[float, int, Member]
"""(time, order of the member's first join, member)"""


def runs_from(member: Member, op: PendingKey) -> float | None:
    """The time that a ready op's deadline runs from.

    None where the op is not pending, or the member cannot be late: it is lost, or was late already.
    """
    since = member.pending.get(op)
    return None if since is None or not member.live or member.stalled else max(since, member.last_progress)


def own_limit(stage: AdaptiveDeadline, member: Member) -> float:
    """The limit (seconds) that a member has by its own ops; the first deadline before any was measured."""
    usual = OWN_TIMES * member.op_seconds if member.op_seconds else stage.first_s
    return min(usual, STAGE_TIMES * stage.seconds, stage.max_s)


@dataclass
class OpClocks:
    """The replicas with pending ops, by the time that the deadline of their first one runs from.

    A deadline is the stage's limit after that time, or `Member.own_s` or `replay_s` if one is longer. All
    change, and the time moves with each progress, so the heaps hold lower bounds: an entry that comes up too
    early goes back with its present time. The first pending op of a member is the oldest, so it is due first.
    """

    limits: Sequence[AdaptiveDeadline]
    """By stage."""
    _by_stage: list[list[_Entry]] = field(init=False)
    """By stage: a heap by the time that the deadline runs from."""
    _by_own: list[_Entry] = field(default_factory=list)
    """A heap by the time at which `own_s` and `replay_s` end, where one is longer than the stage's limit."""
    _armed: dict[str, float] = field(default_factory=dict)
    """Member -> the key of its entry. An entry with another key is out of date."""
    _due: dict[str, Member] = field(default_factory=dict)
    """Members whose deadline had come when it was looked at; they may have made progress since."""

    def __post_init__(self) -> None:
        self._by_stage = [[] for _ in self.limits]

    def arm(self, member: Member, *, again: bool = False) -> None:
        """Watch a member that has a pending op.

        `again`: its `own_s` or `replay_s` is shorter, so it may be due earlier.
        """
        known, start = self._armed.get(member.hotkey), _start(member)
        if start is None:
            if again:
                self._armed.pop(member.hotkey, None)
        elif known is None or (again and self._place(member, start)[1] != known):
            self._push(member, start)

    def deadline(self, member: Member, op: PendingKey) -> float | None:
        """The time by which a ready op must be done; None where `runs_from` is."""
        start = runs_from(member, op)
        return None if start is None else start + self._allowed(member)

    def overdue(self, now: float) -> dict[str, Member]:
        """The members with an op that is past its deadline."""
        self._expire(now)
        return {hotkey: member for hotkey, member in self._due.items() if self._is_past(member, now)}

    def next_due(self, now: float) -> float | None:
        """The earliest deadline after now, or None."""
        self._expire(now)
        members = (heap[0][2] for heap in (*self._by_stage, self._by_own) if heap)
        return min((s + self._allowed(m) for m in members if (s := _start(m)) is not None), default=None)

    def _is_past(self, member: Member, now: float) -> bool:
        start = _start(member)
        return start is not None and start + self._allowed(member) < now

    def _allowed(self, member: Member) -> float:
        return max(self.limits[member.stage].seconds, _own(member))

    def _place(self, member: Member, start: float) -> tuple[list[_Entry], float]:
        """The heap and the key of a member whose deadline runs from `start`."""
        if _own(member) > self.limits[member.stage].seconds:
            return self._by_own, start + _own(member)
        return self._by_stage[member.stage], start

    def _push(self, member: Member, start: float) -> None:
        heap, key = self._place(member, start)
        self._armed[member.hotkey] = key
        heapq.heappush(heap, (key, member.order, member))

    def _expire(self, now: float) -> None:
        """Move the members whose deadline has come to `_due`; the top of each heap is then up to date."""
        for member in list(self._due.values()):
            start = _start(member)
            if start is None or start + self._allowed(member) > now:
                del self._due[member.hotkey]
                self.arm(member)
        for heap in (*self._by_stage, self._by_own):
            while heap:
                key, _, member = heap[0]
                start = _start(member)
                if self._armed.get(member.hotkey) != key:
                    heapq.heappop(heap)
                elif start is None or start + self._allowed(member) <= now:
                    heapq.heappop(heap)
                    del self._armed[member.hotkey]
                    if start is not None:
                        self._due[member.hotkey] = member
                else:
                    place, present = self._place(member, start)
                    if place is heap and present == key:
                        break
                    heapq.heappop(heap)
                    self._push(member, start)


def _own(member: Member) -> float:
    return max(member.own_s, member.replay_s)


def _start(member: Member) -> float | None:
    """The time that the deadline of the member's first pending op runs from; None as for `runs_from`."""
    op = next(iter(member.pending), None)
    return None if op is None else runs_from(member, op)
