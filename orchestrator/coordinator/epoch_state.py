"""State of one epoch: its steps and microbatches, its merge, and its audits."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum

from iota.protocol.events import EpochClose, MergeAssign, MergeReady, Plan, Reroute
from iota.protocol.messages import Direction, FrameNotice, SnapshotStored, StoredObject, Verdict


class Ending(StrEnum):
    """How a microbatch ended."""

    SETTLED = "settled"
    DROPPED = "dropped"


@dataclass
class Place:
    """One microbatch at one stage: the replica that has it, and what that replica has stored."""

    miner: str
    attempt: int = 0
    frames: dict[Direction, FrameNotice] = field(default_factory=dict)
    """Stored frames of this stage, by direction."""
    forward_receipted: bool = False
    counted: tuple[str, int] | None = None
    """(miner, attempt) whose gradient stands in that miner's sum. Set once, never changed."""
    tried: set[tuple[str, int]] = field(default_factory=set)
    """Every (miner, attempt) that this place was given to."""


@dataclass
class MicrobatchState:
    """One microbatch on its route."""

    index: int
    places: list[Place]
    """By stage."""
    next_attempt: int = 1
    """Counts attempts over all stages; attempt 0 is the planned route."""
    ended: Ending | None = None


@dataclass
class PlannedStep:
    """One planned step."""

    plan: Plan
    microbatches: list[MicrobatchState]
    open: int
    """Microbatches that have not ended."""
    order: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """miner -> its counted (microbatch, attempt), in the order of its receipts."""
    losses: list[float] = field(default_factory=list)
    """Loss of each counted LOSS op (nats a token)."""


@dataclass
class PartMerge:
    """The merge of one partition."""

    assign: MergeAssign
    queue: list[str]
    """Candidates for merging it that were not assigned yet, in the order of the draw."""
    mergers: list[str] = field(default_factory=list)
    """Assigned miners."""
    results: dict[str, StoredObject] = field(default_factory=dict)
    """merger -> its copy of the merged part."""
    agreed: StoredObject | None = None
    since: float = 0.0
    """Time of the last assignment, which the merge deadline runs from."""


@dataclass
class StageMerge:
    """The merge of one stage."""

    deltas: dict[str, tuple[StoredObject, ...]] = field(default_factory=dict)
    """miner -> the stored parts of its pseudo-gradient."""
    fixed: bool = False
    """The contributions are decided: later pseudo-gradients are ignored."""
    parts: list[PartMerge] = field(default_factory=list)
    """By partition; empty where the stage lost all of its work."""
    ready: MergeReady | None = None


@dataclass
class EpochState:
    """One epoch, from its first plan to the close of its audits."""

    epoch: int
    steps: list[PlannedStep] = field(default_factory=list)
    closed_steps: int = 0
    """Steps close in order: `steps[:closed_steps]` are closed."""
    reroutes: list[Reroute] = field(default_factory=list)
    merges: list[StageMerge] = field(default_factory=list)
    """By stage; empty until all steps are closed."""
    merging_since: float = 0.0
    receipts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """miner -> digests of its receipts of this epoch."""
    first_receipt: dict[str, int] = field(default_factory=dict)
    """miner -> seq of the first of them."""
    joined: dict[str, int] = field(default_factory=dict)
    """miner -> the step at which its version was the base."""
    stages: dict[str, int] = field(default_factory=dict)
    """miner -> its stage, of every miner that took part."""
    withdrawn: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """miner -> microbatches that were taken from it because it was lost or late."""
    seal: EpochClose | None = None
    sealed_at: float = 0.0
    wanted: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """(miner, version) -> validators that wait for the snapshot."""
    snapshots: dict[tuple[str, int], SnapshotStored] = field(default_factory=dict)
    """(miner, version) -> the stored snapshot."""
    links: dict[str, str] = field(default_factory=dict)
    """validator -> the link that it revealed for this epoch."""
    done: set[str] = field(default_factory=set)
    """Validators that have filed all verdicts of this epoch."""
    verdicts: dict[tuple[str, str, str, int], Verdict] = field(default_factory=dict)
    """(validator, miner, kind of audit, receipt) -> verdict."""
    audits_closed: bool = False

    def open_steps(self) -> list[PlannedStep]:
        """Planned steps that are not closed, in order."""
        return self.steps[self.closed_steps :]
