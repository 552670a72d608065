"""One epoch: its steps and microbatches, its merge, and its audits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from iota.protocol.events import EpochClose, MergeAssign, MergeReady, Plan, Reroute
from iota.protocol.messages import FrameNotice, SnapshotStored, StoredObject, Verdict


class End(StrEnum):
    """How a microbatch ended."""

    SETTLED = "settled"
    DROPPED = "dropped"


@dataclass
class Place:
    """One microbatch at one stage."""

    miner: str
    attempt: int = 0
    forward: FrameNotice | None = None
    forward_receipted: bool = False
    backward: FrameNotice | None = None
    counted: tuple[str, int] | None = None
    """(miner, attempt) whose backward stands in a sum: set once."""
    tried: set[tuple[str, int]] = field(default_factory=set)


@dataclass
class MicrobatchState:
    """One microbatch on its route."""

    index: int
    places: list[Place]
    next_attempt: int = 1
    ended: End | None = None


@dataclass
class StepState:
    """One planned step."""

    plan: Plan
    microbatches: list[MicrobatchState]
    open: int
    """Microbatches that have not ended."""
    order: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """miner -> its counted (microbatch, attempt), in the order of its receipts."""
    losses: list[float] = field(default_factory=list)
    closed: bool = False


@dataclass
class PartMerge:
    """The merge of one partition."""

    assign: MergeAssign
    queue: list[str]
    """Mergers still to be drawn, in order."""
    mergers: list[str] = field(default_factory=list)
    results: dict[str, StoredObject] = field(default_factory=dict)
    agreed: StoredObject | None = None
    since: float = 0.0


@dataclass
class StageMerge:
    """The merge of one stage."""

    deltas: dict[str, tuple[StoredObject, ...]] = field(default_factory=dict)
    fixed: bool = False
    parts: list[PartMerge] = field(default_factory=list)
    ready: MergeReady | None = None


@dataclass
class EpochState:
    """One epoch, from its first plan to the close of its audits."""

    epoch: int
    steps: list[StepState] = field(default_factory=list)
    closed_steps: int = 0
    reroutes: list[Reroute] = field(default_factory=list)
    merges: list[StageMerge] = field(default_factory=list)
    merging_since: float = 0.0
    receipts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """miner -> digests of its receipts of this epoch."""
    first_receipt: dict[str, int] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=dict)
    """miner -> the step at which its version was the base."""
    stages: dict[str, int] = field(default_factory=dict)
    withdrawn: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seal: EpochClose | None = None
    sealed_at: float = 0.0
    wanted: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """(miner, version) -> validators that wait for the snapshot."""
    snapshots: dict[tuple[str, int], SnapshotStored] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    verdicts: dict[tuple[str, str, str, int], Verdict] = field(default_factory=dict)
    """(validator, miner, kind of audit, receipt) -> verdict."""
    audits_closed: bool = False

    def open_steps(self) -> Iterator[StepState]:
        """Planned steps that are not closed, in order."""
        return (s for s in self.steps[self.closed_steps :] if not s.closed)
