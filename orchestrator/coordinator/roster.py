"""Who is in the run, by stage, with counts that are kept up with each change instead of counted again."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field

from iota.protocol.messages import Role
from orchestrator.coordinator.member import Member


@dataclass
class Roster:
    """The members of a run. Only its methods change `Member.live`, `left` and `ready_epoch`."""

    members: dict[str, Member] = field(default_factory=dict)
    """By hotkey, in the order of first joins. Members that have left stay."""
    stages: list[list[Member]] = field(default_factory=list)
    """Miners of each stage that have not left, in the order of first joins."""
    validators: list[Member] = field(default_factory=list)
    """Validators that have not left, in the order of first joins."""
    miners: list[Member] = field(default_factory=list)
    """Every miner, in the order of first joins; those that have left too."""
    holders: list[Counter[int]] = field(default_factory=list)
    """By stage: newest epoch whose base it holds -> number of live miners."""
    live: list[int] = field(default_factory=list)
    """By stage: number of live miners."""

    @classmethod
    def of(cls, stages: int) -> Roster:
        """The empty roster of a run with this number of stages."""
        return cls(
            stages=[[] for _ in range(stages)],
            holders=[Counter() for _ in range(stages)],
            live=[0] * stages,
        )

    def needed_stage(self) -> int:
        """The stage with the fewest live miners, then the fewest miners, then the lowest number."""
        return min(range(len(self.live)), key=lambda s: (self.live[s], len(self.stages[s]), s))

    def add(self, member: Member) -> None:
        """Add a member that is new; it is not live before `set_live`."""
        self.members[member.hotkey] = member
        if member.role is Role.MINER:
            self.miners.append(member)
        self._list(member).append(member)

    def set_live(self, member: Member, live: bool) -> None:
        """Mark a member as live or not, and one that had left as back."""
        if live and member.left:
            member.left = False
            insort(self._list(member), member, key=lambda m: m.order)
        if live != member.live:
            self._count(member, -1)
            member.live = live
            self._count(member, +1)

    def leave(self, member: Member) -> None:
        """Mark a member as left, and not live."""
        self.set_live(member, False)
        if not member.left:
            member.left = True
            self._list(member).remove(member)

    def set_ready(self, member: Member, epoch: int) -> None:
        """Record the newest epoch whose base a miner holds; -1 for none."""
        self._count(member, -1)
        member.ready_epoch = epoch
        self._count(member, +1)

    def holding(self, stage: int, epoch: int) -> int:
        """Number of live miners of a stage whose newest base is that of `epoch`."""
        return self.holders[stage].get(epoch, 0)

    def _list(self, member: Member) -> list[Member]:
        return self.stages[member.stage] if member.role is Role.MINER else self.validators

    def _count(self, member: Member, change: int) -> None:
        if member.live and member.role is Role.MINER:
            self.live[member.stage] += change
            counts = self.holders[member.stage]
            counts[member.ready_epoch] += change
            if not counts[member.ready_epoch]:
                del counts[member.ready_epoch]
