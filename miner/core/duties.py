"""Duties: work for the run beside training (pseudo-gradients, merges, bases, evidence).

A duty is never done twice at the same time, and is given up once the run needs it no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.objects import BaseKey, DeltaKey, EvidenceKey, MergedKey
from iota.protocol.events import (
    Admit,
    AuditsClosed,
    BaseAssign,
    Event,
    EvidenceRequest,
    MergeAssign,
    MergeReady,
)
from miner.core.effects import Duty, MergePart, StoreBase, StoreDelta, StoreEvidence


@dataclass
class Duties:
    """The duties of one replica life."""

    stage: int
    merged_late: bool = False
    """Whether an epoch is merged while the next one is trained."""
    under_way: set[Duty] = field(default_factory=set)
    """Duties that the shell is doing."""
    _merged: int = -1
    """The newest epoch whose merge is ready at this stage."""
    admitted: int = -1
    """The newest epoch that this replica was admitted to. Every stage has merged the epochs before it; with
    overlap, those before the one before it."""
    _parts: dict[tuple[int, int], MergePart] = field(default_factory=dict)
    """By stage and part: the parts of the newest epoch that this replica was drawn to merge."""
    _turns: dict[StoreEvidence, tuple[int, float]] = field(default_factory=dict)
    """(rank, deadline in Unix seconds) of evidence, as it was asked for last."""
    _audited: set[int] = field(default_factory=set)
    """Epochs whose audits are closed."""

    def on_event(self, event: Event) -> list[Duty]:
        """Take an event; returns the duty that it gives, unless that is under way."""
        match event:
            case MergeReady():
                self._merged = max(self._merged, event.epoch)
            case Admit():
                self.admitted = max(self.admitted, event.epoch)
                self._parts = {
                    at: part for at, part in self._parts.items() if not self._is_past(part.assign.epoch)
                }
            case AuditsClosed():
                self._audited.add(event.epoch)
                self._turns = {duty: at for duty, at in self._turns.items() if duty.epoch != event.epoch}
            case MergeAssign():
                self._parts[event.stage, event.part] = MergePart(event)
                return self.begin(self._parts[event.stage, event.part])
            case BaseAssign():
                return self.begin(StoreBase(event.epoch))
            case EvidenceRequest():
                duty = StoreEvidence(event.epoch, event.item, event.version)
                self._turns[duty] = event.rank, event.deadline
                return self.begin(duty)
            case _:
                pass
        return []

    def again(self, key: DeltaKey | MergedKey | BaseKey | EvidenceKey) -> list[Duty]:
        """The duty that stores an object, to be done again; empty if it is under way or no longer wanted."""
        duty: Duty | None
        match key:
            case DeltaKey():
                duty = StoreDelta(key.epoch)
            case MergedKey():
                duty = self._parts.get((key.stage, key.part))
            case BaseKey():
                duty = StoreBase(key.epoch)
            case EvidenceKey():
                duty = StoreEvidence(key.epoch, key.item, key.version)
        return self.begin(duty) if duty is not None and self.wants(duty) else []

    def begin(self, duty: Duty) -> list[Duty]:
        """Mark a duty as under way and return it; empty if it was already."""
        if duty in self.under_way:
            return []
        self.under_way.add(duty)
        return [duty]

    def turn(self, duty: StoreEvidence) -> tuple[int, float]:
        """What is to be stored first has the least."""
        return self._turns.get(duty, (0, 0.0))

    def end(self, duty: Duty) -> None:
        """A duty has succeeded or was given up; the same one may begin again."""
        self.under_way.discard(duty)

    def wants(self, duty: Duty) -> bool:
        """Whether the run still needs the duty's result."""
        match duty:
            case StoreDelta():
                return not self._is_merged(duty.epoch)
            case MergePart(assign):
                # Another stage's MergeReady is not sent here. An epoch starts after all merges of one before.
                over = self._is_merged if assign.stage == self.stage else self._is_past
                return not over(assign.epoch)
            case StoreBase() | StoreEvidence():
                # Audits of an epoch start from its own base, also when newer bases exist.
                return duty.epoch not in self._audited

    def _is_merged(self, epoch: int) -> bool:
        return self._merged >= epoch or self._is_past(epoch)

    def _is_past(self, epoch: int) -> bool:
        return self.admitted > epoch + self.merged_late
