"""Duties: what a replica owes the run beside its training.

Each is done once at a time, and for as long as the run still has a use for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.protocol.events import Admit, AuditRequest, AuditsClosed, BaseAssign, Event, MergeAssign, MergeReady
from miner.core.effects import Duty, MergePart, StoreBase, StoreDelta, StoreSnapshot


@dataclass
class Duties:
    """The duties of one life of a replica."""

    stage: int
    under_way: set[Duty] = field(default_factory=set)
    _merged: int = -1
    """The newest epoch whose merge is ready at this stage."""
    _admitted: int = -1
    """The newest epoch that this replica trains in: every stage has merged those before it."""
    _audited: set[int] = field(default_factory=set)
    """Epochs whose audits are closed."""

    def hear(self, event: Event) -> list[Duty]:
        """Take an event; the duty that it gives, unless it is under way already."""
        match event:
            case MergeReady():
                self._merged = max(self._merged, event.epoch)
            case Admit():
                self._admitted = max(self._admitted, event.epoch)
            case AuditsClosed():
                self._audited.add(event.epoch)
            case MergeAssign():
                return self.begin(MergePart(event))
            case BaseAssign():
                return self.begin(StoreBase(event.epoch))
            case AuditRequest():
                return self.begin(StoreSnapshot(event.epoch, event.version))
            case _:
                pass
        return []

    def begin(self, duty: Duty) -> list[Duty]:
        if duty in self.under_way:
            return []
        self.under_way.add(duty)
        return [duty]

    def end(self, duty: Duty) -> None:
        self.under_way.discard(duty)

    def wants(self, duty: Duty) -> bool:
        """Whether the run still has a use for the duty's result."""
        match duty:
            case StoreDelta():
                return not self._is_merged(duty.epoch)
            case MergePart(assign):
                # Another stage's merge is not announced here; the next epoch starts when all are done.
                over = self._is_merged if assign.stage == self.stage else self._is_left
                return not over(assign.epoch)
            case StoreBase() | StoreSnapshot():
                # Later bases do not replace an epoch's: its audits start from it.
                return duty.epoch not in self._audited

    def _is_merged(self, epoch: int) -> bool:
        return self._merged >= epoch or self._is_left(epoch)

    def _is_left(self, epoch: int) -> bool:
        return self._admitted > epoch
