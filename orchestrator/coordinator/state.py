"""The coordinator's state: plain dataclasses, changed only while an entry is applied."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from iota.protocol.events import (
    EpochClose,
    Event,
    MergeAssign,
    MergeReady,
    Plan,
    Reroute,
)
from iota.protocol.messages import (
    Capabilities,
    Direction,
    FrameNotice,
    Outcome,
    Role,
    SnapshotStored,
    StoredObject,
    Verdict,
)
from iota.protocol.receipts import GENESIS
from iota.protocol.records import BaseRecord
from iota.spec import Pipeline, RunSpec
from orchestrator.coordinator.deadlines import AdaptiveDeadline

MOST_NAMED = 1000


@dataclass(frozen=True)
class Limits:
    """What the coordinator does about time and trouble; seconds."""

    attempts: int = 4
    """Routes of one microbatch before it is dropped."""
    lookahead: int = 2
    """Steps that are planned at once, so that a replica is never without a next op."""
    first_s: float = 60.0
    """Deadline of an op before eight were measured."""
    least_s: float = 2.0
    most_s: float = 600.0
    merge_first_s: float = 120.0
    start_s: float = 120.0
    """How long the first epoch waits for the planned replicas once each stage has one."""


class Phase(StrEnum):
    GATHERING = "gathering"
    """Waiting until every stage has replicas that hold the base."""
    TRAINING = "training"
    MERGING = "merging"
    FINISHED = "finished"


class End(StrEnum):
    SETTLED = "settled"
    DROPPED = "dropped"


PendingKey = tuple[int, int, Direction]
"""(step, microbatch, direction) of an op whose inputs are all there."""


@dataclass
class Member:
    """One hotkey in the run."""

    hotkey: str
    role: Role
    stage: int
    """-1 for a validator."""
    order: int
    capabilities: Capabilities
    live: bool = True
    stalled: bool = False
    """It missed a deadline; nothing is planned for it until it is heard to work again."""
    receipts: int = 0
    head: str = GENESIS
    events: list[tuple[int, Event]] = field(default_factory=list)
    next_seq: int = 1
    cursor_start: int = 0
    """A node that restarts from its disk needs the events after this one."""
    ready_epoch: int = -1
    joined: tuple[int, int] | None = None
    """(epoch, step) from which it takes part."""
    left: bool = False
    told_base: int = -1
    """Newest epoch whose base it was told to load."""
    pending: dict[PendingKey, float] = field(default_factory=dict)
    """Ready ops, with the time since when."""
    last_progress: float = 0.0
    op_seconds: float = 0.0
    """Smoothed seconds from a ready op to its end, as seen from here."""
    tokens: int = 0
    """Tokens of its counted work, all epochs."""
    misloaded: int = -1
    """Newest epoch whose base it held with another digest than its stage."""
    withdrawn: int = 0
    last_step: tuple[int, int] = (-1, -1)
    """(epoch, step) of its newest STEP receipt."""
    resume: bool = False
    """The last join continued from disk."""


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
    index: int
    places: list[Place]
    next_attempt: int = 1
    ended: End | None = None


@dataclass
class StepState:
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
    assign: MergeAssign
    queue: list[str]
    """Mergers still to be drawn, in order."""
    mergers: list[str] = field(default_factory=list)
    results: dict[str, StoredObject] = field(default_factory=dict)
    agreed: StoredObject | None = None
    since: float = 0.0


@dataclass
class StageMerge:
    deltas: dict[str, tuple[StoredObject, ...]] = field(default_factory=dict)
    fixed: bool = False
    parts: list[PartMerge] = field(default_factory=list)
    ready: MergeReady | None = None


@dataclass
class EpochState:
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
        return (s for s in self.steps[self.closed_steps :] if not s.closed)


@dataclass
class RunState:
    spec: RunSpec
    limits: Limits
    now: float = 0.0
    phase: Phase = Phase.GATHERING
    epoch: int = 0
    """The epoch in training, or whose merge is under way."""
    members: dict[str, Member] = field(default_factory=dict)
    epochs: dict[int, EpochState] = field(default_factory=dict)
    base_digests: dict[tuple[int, int], str] = field(default_factory=dict)
    """(epoch, stage) -> digest of (W, m) that the stage's replicas agreed on."""
    base_claims: dict[tuple[int, int], dict[str, str]] = field(default_factory=dict)
    """(epoch, stage) -> digests by replica, while they have not agreed."""
    claims_since: dict[tuple[int, int], float] = field(default_factory=dict)
    bases: dict[tuple[int, int], BaseRecord] = field(default_factory=dict)
    base_assigned: dict[tuple[int, int], tuple[str, float]] = field(default_factory=dict)
    """(epoch, stage) -> who is to store the base, and since when."""
    gathering_since: float | None = None
    block: int = 0
    block_hash: str = GENESIS
    woken: set[str] = field(default_factory=set)
    deletions: list[str] = field(default_factory=list)
    closed_epochs: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Mean loss of each closed step (nats a token), in order."""
    tokens: int = 0
    settled: int = 0
    dropped: int = 0
    rerouted: int = 0
    unfit: int = 0
    """Facts that did not fit and were ignored."""
    verdicts: deque[tuple[str, Verdict]] = field(default_factory=lambda: deque(maxlen=MOST_NAMED))
    """The newest, for people; each epoch keeps its own."""
    audits: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    heldout: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    compute_share: dict[str, float] = field(default_factory=dict)
    named: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_NAMED))
    """What went wrong and who it was, for people."""
    internal_errors: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_NAMED))
    """Entries that could not be applied whole: faults of this program, which must not end the run."""
    run_end_sent: bool = False
    dirty: bool = True
    """Membership, bases or phase changed: the slow checks of `advance` are due."""
    service: dict[int, AdaptiveDeadline] = field(default_factory=dict)
    merge_deadline: AdaptiveDeadline = field(init=False)

    def __post_init__(self) -> None:
        lim = self.limits
        self.merge_deadline = AdaptiveDeadline(lim.merge_first_s, lim.least_s, lim.most_s)
        self.service = {s: AdaptiveDeadline(lim.first_s, lim.least_s, lim.most_s) for s in range(self.stages)}

    @property
    def stages(self) -> int:
        return self.spec.layout.stages

    @property
    def current(self) -> EpochState:
        return self.epochs[self.epoch]

    @property
    def newest_base(self) -> int:
        """The newest epoch whose base is stored whole; -1 before the first."""
        epochs = {epoch for epoch, _ in self.bases}
        whole = (e for e in epochs if all((e, s) in self.bases for s in range(self.stages)))
        return max(whole, default=-1)

    def send(self, hotkey: str, event: Event) -> None:
        member = self.members[hotkey]
        member.events.append((member.next_seq, event))
        member.next_seq += 1
        self.woken.add(hotkey)

    def miners(self, stage: int | None = None) -> list[Member]:
        """Miners (of one stage) that have not left, in join order."""
        found = (m for m in self.members.values() if m.role is Role.MINER and not m.left)
        return sorted((m for m in found if stage in (None, m.stage)), key=lambda m: m.order)

    def validators(self) -> list[Member]:
        return [m for m in self.members.values() if m.role is Role.VALIDATOR and m.live and not m.left]

    def active(self, stage: int, step: int) -> list[Member]:
        """Miners that can be given work of `step` of the current epoch at `stage`."""
        return [
            m
            for m in self.miners(stage)
            if m.live
            and not m.stalled
            and m.joined is not None
            and m.joined <= (self.epoch, step)
            and m.ready_epoch == self.epoch
        ]

    def runnable(self, step: int) -> bool:
        """Whether the weights that `step` uses exist once all closed steps have been applied."""
        ahead = 1 if self.spec.schedule.pipeline is Pipeline.DELAYED else 0
        return step <= self.current.closed_steps + ahead
