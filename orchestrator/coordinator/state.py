"""The coordinator's state: plain dataclasses, changed only while an entry is applied."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from iota.protocol.events import (
    Event,
)
from iota.protocol.messages import (
    Outcome,
    Role,
    Verdict,
)
from iota.protocol.receipts import GENESIS
from iota.protocol.records import BaseRecord
from iota.spec import Pipeline, RunSpec
from orchestrator.coordinator.deadlines import AdaptiveDeadline
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member

MAX_NAMED = 1000
"""Incidents and verdicts that the status can show."""


@dataclass(frozen=True)
class Limits:
    """Deadlines (seconds) and numbers of attempts."""

    attempts: int = 4
    """Routes of one microbatch before it is dropped."""
    lookahead: int = 2
    """Steps that are planned at once, so that a replica is never without a next op."""
    first_s: float = 60.0
    """Deadline of an op before eight were measured."""
    min_s: float = 2.0
    max_s: float = 600.0
    merge_first_s: float = 120.0
    start_s: float = 120.0
    """Wait of the first epoch for the planned replicas, once each stage has one."""


class Phase(StrEnum):
    """Phases of a run; training and merging alternate."""

    GATHERING = "gathering"
    """Waiting until every stage has replicas that hold the base."""
    TRAINING = "training"
    MERGING = "merging"
    FINISHED = "finished"


@dataclass
class Head:
    """The chain's newest block, as far as a Tick has told."""

    block: int = 0
    hash: str = GENESIS


StageEpoch = tuple[int, int]
"""(epoch, stage)"""


@dataclass
class Bases:
    """The bases of each epoch and stage: what replicas claim, agree on and store."""

    digests: dict[StageEpoch, str] = field(default_factory=dict)
    """Digest of (W, m) that the stage's replicas agreed on."""
    claims: dict[StageEpoch, dict[str, str]] = field(default_factory=dict)
    """Digests by replica, while they have not agreed."""
    claimed_since: dict[StageEpoch, float] = field(default_factory=dict)
    assigned: dict[StageEpoch, tuple[str, float]] = field(default_factory=dict)
    """The replica that is to store the base, and since when."""
    stored: dict[StageEpoch, BaseRecord] = field(default_factory=dict)


@dataclass
class Totals:
    """Counts over the whole run."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of each closed step (nats a token), in order."""
    tokens: int = 0
    settled: int = 0
    dropped: int = 0
    rerouted: int = 0
    unfit: int = 0
    """Facts that did not fit and were ignored."""


@dataclass
class Audits:
    """Results of audits over all epochs; each epoch keeps its own verdicts until it is closed."""

    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    verdicts: deque[tuple[str, Verdict]] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """The newest (validator, verdict), shown in the status."""
    heldout: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    """epoch -> held-out loss of its base, and before the merge."""
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    """validator -> weight by miner, as it reported them."""
    compute_share: dict[str, float] = field(default_factory=dict)
    closed_epochs: list[int] = field(default_factory=list)


@dataclass
class Incidents:
    """The newest faults, shown in the status."""

    named: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """One sentence each, with the hotkey at fault."""
    internal: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """Entries that could not be applied whole: faults of this program, which must not end the run."""


@dataclass
class Outbox:
    """Effects for the shell, which takes and empties both."""

    woken: set[str] = field(default_factory=set)
    """Hotkeys that have new events."""
    deletions: list[str] = field(default_factory=list)
    """Prefixes of the store that nothing needs any more."""


@dataclass
class Deadlines:
    """Adaptive deadlines."""

    ops: dict[int, AdaptiveDeadline]
    """By stage."""
    merge: AdaptiveDeadline
    """Of each wait in the merge phase."""

    @classmethod
    def within(cls, limits: Limits, stages: int) -> Deadlines:
        """Deadlines without measurements."""
        bounds = (limits.min_s, limits.max_s)
        ops = {stage: AdaptiveDeadline(limits.first_s, *bounds) for stage in range(stages)}
        return cls(ops, AdaptiveDeadline(limits.merge_first_s, *bounds))


@dataclass
class RunState:
    """Everything that entries change. `epochs` holds each epoch's own part, `members` each node's."""

    spec: RunSpec
    limits: Limits
    now: float = 0.0
    phase: Phase = Phase.GATHERING
    epoch: int = 0
    """The epoch in training, or whose merge is under way."""
    gathering_since: float | None = None
    """Since when every stage has a ready replica, before the first epoch."""
    run_end_sent: bool = False
    dirty: bool = True
    """Membership, bases or phase changed: the slow checks of `advance` are due."""
    members: dict[str, Member] = field(default_factory=dict)
    epochs: dict[int, EpochState] = field(default_factory=dict)
    head: Head = field(default_factory=Head)
    bases: Bases = field(default_factory=Bases)
    totals: Totals = field(default_factory=Totals)
    audits: Audits = field(default_factory=Audits)
    incidents: Incidents = field(default_factory=Incidents)
    outbox: Outbox = field(default_factory=Outbox)
    deadlines: Deadlines = field(init=False)

    def __post_init__(self) -> None:
        self.deadlines = Deadlines.within(self.limits, self.stages)

    @property
    def stages(self) -> int:
        """Number of stages."""
        return self.spec.layout.stages

    @property
    def current(self) -> EpochState:
        """The epoch in training, or whose merge is under way."""
        return self.epochs[self.epoch]

    @property
    def newest_base(self) -> int:
        """The newest epoch whose base is stored whole; -1 before the first."""
        epochs = {epoch for epoch, _ in self.bases.stored}
        whole = (e for e in epochs if all((e, s) in self.bases.stored for s in range(self.stages)))
        return max(whole, default=-1)

    def send(self, hotkey: str, event: Event) -> None:
        """Append a numbered event for a node, and wake its open poll."""
        member = self.members[hotkey]
        member.events.append((member.next_seq, event))
        member.next_seq += 1
        self.outbox.woken.add(hotkey)

    def miners(self, stage: int | None = None) -> list[Member]:
        """Miners (of one stage) that have not left, in join order."""
        found = (m for m in self.members.values() if m.role is Role.MINER and not m.left)
        return sorted((m for m in found if stage in (None, m.stage)), key=lambda m: m.order)

    def validators(self) -> list[Member]:
        """Validators that are live."""
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
