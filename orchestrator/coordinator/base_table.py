"""The bases of a run's stages: claimed, agreed on, and stored. A part of the coordinator's state."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field

from iota.protocol.records import BaseRecord
from orchestrator.coordinator.waiting import Waiting

StageEpoch = tuple[int, int]
"""(epoch, stage)"""


@dataclass
class Claims:
    """What the replicas of a stage say is the digest of a base."""

    digests: dict[str, str] = field(default_factory=dict)
    """replica -> digest that it reported first: nobody takes a false one back before it is found out."""
    votes: dict[str, dict[str, bool]] = field(default_factory=dict)
    """digest -> owner of a replica with a voice -> whether one of these has work that counts."""

    def vote(self, owner: str, digest: str, works: bool) -> None:
        """Count the claim of a replica that has a voice."""
        votes = self.votes.setdefault(digest, {})
        votes[owner] = works or votes.get(owner, False)


@dataclass
class Bases:
    """The bases of each epoch and stage: claimed, agreed on, and stored."""

    digests: dict[StageEpoch, str] = field(default_factory=dict)
    """Digest of (W, m) that the stage's replicas agreed on."""
    claims: dict[StageEpoch, Claims] = field(default_factory=dict)
    """What was reported since the stage last agreed."""
    disputed: Waiting[StageEpoch] = field(default_factory=Waiting)
    """Claimed bases without an agreed digest, since the first claim."""
    unmade: dict[StageEpoch, None] = field(default_factory=dict)
    """Those of them that the orchestrator is to make."""
    made: dict[StageEpoch, float] = field(default_factory=dict)
    """Bases that the orchestrator made -> when."""
    makers: dict[StageEpoch, tuple[str, ...]] = field(default_factory=dict)
    """The replicas whose claims decided the digest."""
    false_owners: set[str] = field(default_factory=set)
    """Owners whose replicas claimed another base than the orchestrator made: they decide none any more."""
    keepers: dict[StageEpoch, str] = field(default_factory=dict)
    """The replica that was asked last to store the base."""
    asked: dict[StageEpoch, set[str]] = field(default_factory=dict)
    """All that were asked: each writes its own copy, and the first that is whole counts."""
    unstored: Waiting[StageEpoch] = field(default_factory=Waiting)
    """Bases that a replica was asked to store, and has not stored yet, since it was asked."""
    unkept: dict[StageEpoch, None] = field(default_factory=dict)
    """Those that no replica stored in time, so that the orchestrator is to store them."""
    stored: dict[StageEpoch, BaseRecord] = field(default_factory=dict)
    complete: list[int] = field(default_factory=list)
    """The epochs whose base is stored by every stage, in order."""
    stages_stored: Counter[int] = field(default_factory=Counter)
    """epoch -> number of its bases that are stored."""

    def store(self, base: BaseRecord, stages: int) -> None:
        """Record a stored base of one of the run's `stages`."""
        self.stored[base.epoch, base.stage] = base
        self.unstored.end((base.epoch, base.stage))
        self.unkept.pop((base.epoch, base.stage), None)
        self.stages_stored[base.epoch] += 1
        if self.stages_stored[base.epoch] == stages:
            insort(self.complete, base.epoch)

    def forget(self, epoch: int, stages: int, *, stored: bool) -> None:
        """Forget the bases of an epoch whose audits are closed, and where they are, unless that is kept."""
        for at in ((epoch, stage) for stage in range(stages)):
            for table in (self.digests, self.made, self.makers, self.keepers, self.asked):
                table.pop(at, None)
            self.unstored.end(at)
            self.unkept.pop(at, None)
            if stored:
                self.stored.pop(at, None)
        if stored and self.stages_stored.pop(epoch, 0) == stages:
            self.complete.remove(epoch)
