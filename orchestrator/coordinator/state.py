"""The coordinator's state: plain dataclasses, changed only while an entry is applied."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from iota.protocol.events import Event
from iota.protocol.messages import Heldout, Outcome, Role, Verdict
from iota.protocol.receipts import GENESIS
from iota.protocol.records import BaseRecord
from iota.spec import Pipeline, RunSpec
from orchestrator.coordinator.adaptive_deadline import AdaptiveDeadline
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member

MAX_NAMED = 1000
"""Newest incidents and verdicts that are kept for the status."""


@dataclass(frozen=True)
class Limits:
    """Deadlines (seconds) and numbers of attempts."""

    attempts: int = 4
    """Routes of one microbatch before it is dropped."""
    lookahead: int = 2
    """Steps that are planned ahead, so that a replica always knows its next op."""
    first_s: float = 60.0
    """Deadline of an op before enough durations were measured."""
    min_s: float = 2.0
    max_s: float = 600.0
    """Bounds of every adaptive deadline."""
    merge_first_s: float = 120.0
    """Deadline of a wait in the merge phase before enough were measured."""
    start_s: float = 120.0
    """Once every stage has a replica, the first epoch waits this long for the planned number."""


class Phase(StrEnum):
    """Phases of a run; training and merging alternate, once an epoch."""

    GATHERING = "gathering"
    """Waiting until every stage has replicas that hold the base."""
    TRAINING = "training"
    MERGING = "merging"
    """From the close of an epoch's last step until the next epoch begins."""
    FINISHED = "finished"


@dataclass
class Head:
    """The newest block of the chain that a Tick has named."""

    block: int = 0
    hash: str = GENESIS


StageEpoch = tuple[int, int]
"""(epoch, stage)"""


@dataclass
class Bases:
    """The bases of each epoch and stage: claimed, agreed on, and stored."""

    digests: dict[StageEpoch, str] = field(default_factory=dict)
    """Digest of (W, m) that the stage's replicas agreed on."""
    claims: dict[StageEpoch, dict[str, str]] = field(default_factory=dict)
    """replica -> digest that it reported, until the stage has agreed."""
    claimed_since: dict[StageEpoch, float] = field(default_factory=dict)
    """Time of the first claim, which the deadline for agreeing runs from."""
    assigned: dict[StageEpoch, tuple[str, float]] = field(default_factory=dict)
    """The replica that was asked to store the base, and when."""
    stored: dict[StageEpoch, BaseRecord] = field(default_factory=dict)

    def keeper(self, at: StageEpoch) -> str | None:
        """The replica that was asked to store a base, if one was."""
        return self.assigned[at][0] if at in self.assigned else None


@dataclass
class Totals:
    """Counts over the whole run."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of each closed step (nats a token), in order."""
    merges: list[int] = field(default_factory=list)
    """Number of losses at each merge: where the merges stand on a loss curve."""
    stage_tokens: dict[tuple[int, int], int] = field(default_factory=dict)
    """(epoch, stage) -> tokens that count at the stage."""
    tokens: int = 0
    settled: int = 0
    dropped: int = 0
    rerouted: int = 0
    unfit: int = 0
    """Facts that did not fit the state of the run and were ignored."""


@dataclass
class Audits:
    """Results of audits over all epochs; each epoch keeps its own verdicts until it is closed."""

    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    verdicts: deque[tuple[str, Verdict]] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """The newest (validator, verdict), shown in the status."""
    heldout: dict[int, Heldout] = field(default_factory=dict)
    """epoch -> the first report of its base's held-out loss."""
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    """validator -> weight by miner, as the validator reported them."""
    compute_share: dict[str, float] = field(default_factory=dict)
    """validator -> its reported share of time spent on audits."""
    closed_epochs: list[int] = field(default_factory=list)


@dataclass
class Incidents:
    """The newest faults, shown in the status."""

    named: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """One sentence each, with the hotkey at fault."""
    internal: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """Tracebacks of bugs: entries that were not fully applied, which must not end the run."""


@dataclass
class Outbox:
    """Effects for the shell: `take_woken` and `take_deletions` return and clear them."""

    woken: set[str] = field(default_factory=set)
    """Hotkeys that have new events."""
    deletions: list[str] = field(default_factory=list)
    """Prefixes of objects in the store that are no longer needed."""


@dataclass
class Deadlines:
    """Adaptive deadlines of a run."""

    ops: list[AdaptiveDeadline]
    """Of an op, by stage."""
    merge: AdaptiveDeadline
    """Of each wait in the merge phase."""


@dataclass
class RunState:
    """The whole state of a run, which only `Coordinator.apply` changes."""

    spec: RunSpec
    limits: Limits
    now: float = 0.0
    """Time of the newest entry (Unix seconds): the coordinator has no clock."""
    phase: Phase = Phase.GATHERING
    epoch: int = 0
    """The epoch in training, or whose merge is under way."""
    gathering_since: float | None = None
    """Before the first epoch: the time since when every stage has a ready replica."""
    run_end_sent: bool = False
    dirty: bool = True
    """Membership, bases or phase changed: `Coordinator` runs its slow checks with the next entry."""
    members: dict[str, Member] = field(default_factory=dict)
    """By hotkey."""
    epochs: dict[int, EpochState] = field(default_factory=dict)
    head: Head = field(default_factory=Head)
    bases: Bases = field(default_factory=Bases)
    totals: Totals = field(default_factory=Totals)
    audits: Audits = field(default_factory=Audits)
    incidents: Incidents = field(default_factory=Incidents)
    outbox: Outbox = field(default_factory=Outbox)
    deadlines: Deadlines = field(init=False)

    def __post_init__(self) -> None:
        limits, bounds = self.limits, (self.limits.min_s, self.limits.max_s)
        ops = [AdaptiveDeadline(limits.first_s, *bounds) for _ in range(self.stages)]
        self.deadlines = Deadlines(ops, AdaptiveDeadline(limits.merge_first_s, *bounds))

    @property
    def stages(self) -> int:
        """Number of stages of the model."""
        return self.spec.layout.stages

    @property
    def current(self) -> EpochState:
        """The epoch in training, or whose merge is under way."""
        return self.epochs[self.epoch]

    @property
    def stored_epochs(self) -> list[int]:
        """The epochs whose base is stored by every stage, in order."""
        epochs = sorted({epoch for epoch, _ in self.bases.stored})
        return [e for e in epochs if all((e, s) in self.bases.stored for s in range(self.stages))]

    @property
    def newest_base(self) -> int:
        """The newest epoch whose base is stored by every stage; -1 before the first."""
        return max(self.stored_epochs, default=-1)

    def send(self, hotkey: str, event: Event) -> None:
        """Append an event to a node's numbered sequence; the shell then answers its waiting exchange."""
        member = self.members[hotkey]
        member.events.append((member.next_seq, event))
        member.next_seq += 1
        self.outbox.woken.add(hotkey)

    def send_all(self, event: Event) -> None:
        """Append an event for every member that has not left."""
        for member in self.members.values():
            if not member.left:
                self.send(member.hotkey, event)

    def miners(self, stage: int | None = None) -> list[Member]:
        """Miners (of one stage) that have not left, in join order."""
        found = (m for m in self.members.values() if m.role is Role.MINER and not m.left)
        return sorted((m for m in found if stage in (None, m.stage)), key=lambda m: m.order)

    def validators(self) -> list[Member]:
        """Validators that are live."""
        return [m for m in self.members.values() if m.role is Role.VALIDATOR and m.live]

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
