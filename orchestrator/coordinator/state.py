"""The coordinator's state: plain dataclasses, changed only while an entry is applied."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from iota.objects import delta_part_bytes, merged_sizes, part_sizes
from iota.protocol.events import EpochClose, Event
from iota.protocol.heldout import BaseLoss
from iota.protocol.messages import Outcome, Role, Verdict
from iota.protocol.plans import WholePlan
from iota.protocol.receipts import GENESIS
from iota.spec import Pipeline, RunSpec
from orchestrator.bridge import Bridge
from orchestrator.coordinator.adaptive_deadline import AdaptiveDeadline
from orchestrator.coordinator.base_table import Bases, StageEpoch
from orchestrator.coordinator.epoch_state import EpochState, MicrobatchState, PartMerge, PlannedStep
from orchestrator.coordinator.member import Member, Owed, PendingKey
from orchestrator.coordinator.op_clocks import OpClocks
from orchestrator.coordinator.owners import Owners
from orchestrator.coordinator.roster import Roster
from orchestrator.coordinator.verdict_log import PublicVerdicts

_FP32 = 4
"""Bytes of an element."""
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
    merge_min_s: float = 15.0
    """Its least: who lost a connection, or its process, is back by then, or silent for too long."""
    start_s: float = 120.0
    """Once every stage has a replica, the first epoch waits this long for the planned number."""


class Phase(StrEnum):
    """Phases of a run; training and merging alternate, once an epoch.

    With overlap the merge goes on while the next epoch is trained.
    """

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


EvidenceDue = tuple[float, str, Owed]
"""Deadline, miner and name of evidence that was asked for."""


@dataclass
class Changed:
    """What must be looked at again since the last entry; all else is as it was."""

    offers: dict[str, Member] = field(default_factory=dict)
    """Miners that may lack the current base, and were not told of it."""
    admissions: dict[str, Member] = field(default_factory=dict)
    """Miners that may be admitted to the epoch."""
    stranded: dict[str, Member] = field(default_factory=dict)
    """Miners that may have work which they cannot do now."""
    claims: dict[StageEpoch, None] = field(default_factory=dict)
    void: dict[str, Member] = field(default_factory=dict)
    """Miners whose contribution is not in the merge, and that may have begun the next epoch with it."""
    keepers: bool = False
    """Some replica that was asked to store a base may be gone."""
    contributions: set[int] = field(default_factory=set)
    """Stages with a new pseudo-gradient, or with a member that does not owe one any more."""
    parts: set[tuple[int, int]] = field(default_factory=set)
    """(stage, part) of merges with a new copy, or with a merger that is gone."""
    unmanned: set[tuple[int, int]] = field(default_factory=set)
    """(stage, part) of merges that lack a merger until another miner is live."""
    behind: set[int] = field(default_factory=set)
    """Stages that do not hold the next base, as far as is known."""


@dataclass
class Totals:
    """Counts over the whole run."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of each closed step (nats a token), in order."""
    merges: list[int] = field(default_factory=list)
    """Number of losses at each merge: where the merges stand on a loss curve."""
    heldout: dict[int, BaseLoss] = field(default_factory=dict)
    """epoch -> the held-out loss of its base, by its receipts."""
    stage_tokens: dict[tuple[int, int], int] = field(default_factory=dict)
    """(epoch, stage) -> tokens that count at the stage."""
    tokens: int = 0
    settled: int = 0
    dropped: int = 0
    rerouted: int = 0
    unfit: int = 0
    """Facts that did not fit the state of the run and were ignored."""


@dataclass
class SealedRecord:
    """A sealed epoch as it is published: bytes that never change, and the links that its audits drew from."""

    seal: EpochClose
    packed: bytes
    """The record's JSON bytes, compressed (zlib)."""
    links: dict[str, str] = field(default_factory=dict)
    """validator -> its revealed link, once the audits are closed; before, the epoch's state has them."""
    plans: tuple[str, ...] = ()
    """Root of each step's plan, likewise."""
    closed_in: int | None = None
    """The epoch in training when its audits were closed."""


@dataclass
class Audits:
    """Results of audits over all epochs."""

    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    verdicts: deque[tuple[str, Verdict]] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """The newest (validator, verdict), shown in the status."""
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    """validator -> weight by miner, as the validator reported them."""
    compute_share: dict[str, float] = field(default_factory=dict)
    """validator -> its reported share of time spent on audits."""
    closed_epochs: list[int] = field(default_factory=list)
    sealed: int = 0
    """Number of epochs that are sealed: they are sealed in order."""
    published: dict[int, SealedRecord] = field(default_factory=dict)
    """The sealed epochs that can be read, until `audit.window` epochs after their audits were closed."""
    due: list[EvidenceDue] = field(default_factory=list)
    """A heap of the deadlines of evidence. One that was delivered or postponed leaves its entry behind."""
    filed: dict[int, PublicVerdicts] = field(default_factory=dict)
    """epoch -> its verdicts, for a window of epochs after its audits were closed."""


@dataclass
class Incidents:
    """The newest faults, shown in the status."""

    named: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """One sentence each, with the hotkey at fault."""
    internal: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_NAMED))
    """Tracebacks of bugs: entries that were not fully applied, which must not end the run."""


@dataclass
class Outbox:
    """Effects for the shell, which takes and clears them by `Coordinator.take_...`."""

    woken: set[str] = field(default_factory=set)
    """Hotkeys that have new events."""
    deletions: list[str] = field(default_factory=list)
    """Prefixes of objects in the store that are no longer needed."""
    plans: list[WholePlan] = field(default_factory=list)
    """Plans to store."""


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
    began: float = 0.0
    """Time of the first entry."""
    phase: Phase = Phase.GATHERING
    epoch: int = 0
    """The epoch in training, or the last one that was trained."""
    merging: int | None = None
    """The epoch whose merge is under way: with overlap it may be the one before."""
    gathering_since: float | None = None
    """Before the first epoch: the time since when every stage has a ready replica."""
    run_end_sent: bool = False
    store_away_since: float | None = None
    """The time since when the object store does not answer; None while it does."""
    heard_by: float = 0.0
    """When all members have heard of the end of the last outage: waits of the merge begin no earlier."""
    dirty: bool = True
    """Membership, bases or phase changed: `Coordinator` looks at `changed` with the next entry."""
    epochs: dict[int, EpochState] = field(default_factory=dict)
    """The current epoch, and earlier ones with open audits."""
    contested: dict[str, PartMerge] = field(default_factory=dict)
    """merger -> the first agreed part, of an epoch with open audits, that it signed otherwise. The
    orchestrator merges it to see who is wrong: one for each merger, since who is wrong is drawn no more."""
    slow_givers: dict[str, int] = field(default_factory=dict)
    """owner -> the last epoch in which its workers' pseudo-gradients are waited for shortly."""
    slow_mergers: dict[str, int] = field(default_factory=dict)
    """owner -> the last epoch in which its workers are drawn last to merge: one was late with a part."""
    head: Head = field(default_factory=Head)
    owners: Owners = field(default_factory=Owners)
    bases: Bases = field(default_factory=Bases)
    totals: Totals = field(default_factory=Totals)
    audits: Audits = field(default_factory=Audits)
    incidents: Incidents = field(default_factory=Incidents)
    outbox: Outbox = field(default_factory=Outbox)
    changed: Changed = field(default_factory=Changed)
    bridge: Bridge = field(default_factory=Bridge)
    """Variables that members share; the operator pauses the run and sets its rate by some of them."""
    part_bytes: list[list[int]] = field(init=False)
    """By stage: bytes of each partition of its fp32 vector."""
    delta_bytes: list[list[int]] = field(init=False)
    """By stage: bytes of each encoded partition of a pseudo-gradient."""
    roster: Roster = field(init=False)
    deadlines: Deadlines = field(init=False)
    clocks: OpClocks = field(init=False, compare=False)

    def __post_init__(self) -> None:
        limits, bounds = self.limits, (self.limits.min_s, self.limits.max_s)
        ops = [AdaptiveDeadline(limits.first_s, *bounds) for _ in range(self.stages)]
        merge = AdaptiveDeadline(limits.merge_first_s, limits.merge_min_s, limits.max_s)
        self.deadlines = Deadlines(ops, merge)
        self.part_bytes = [[_FP32 * n for n in part_sizes(self.spec, stage)] for stage in range(self.stages)]
        self.delta_bytes = [delta_part_bytes(self.spec, stage) for stage in range(self.stages)]
        self.roster, self.clocks = Roster.of(self.stages), OpClocks(ops)

    @property
    def stages(self) -> int:
        """Number of stages of the model."""
        return self.spec.layout.stages

    @property
    def current(self) -> EpochState:
        """The epoch in training, or the last one that was trained."""
        return self.epochs[self.epoch]

    @property
    def anchor(self) -> int:
        """Number of the base that replicas begin the current epoch from."""
        return self.spec.anchor(self.epoch)

    def merging_epoch(self) -> EpochState:
        """The epoch whose merge is under way. Call it only while there is one."""
        assert self.merging is not None
        return self.epochs[self.merging]

    @property
    def members(self) -> dict[str, Member]:
        """Every member that ever joined, by hotkey."""
        return self.roster.members

    @property
    def newest_base(self) -> int:
        """The newest epoch whose base is stored by every stage; -1 before the first."""
        return self.bases.complete[-1] if self.bases.complete else -1

    def merged_sizes(self, stage: int, part: int, contributions: int) -> range:
        """The numbers of bytes that a merged partition of so many contributions may have."""
        return merged_sizes(self.spec.outer.codec, self.part_bytes[stage][part] // _FP32, contributions)

    def send(self, hotkey: str, event: Event) -> None:
        """Append an event to a node's numbered sequence; the shell then answers its waiting exchange."""
        self.members[hotkey].events.append(event)
        self.outbox.woken.add(hotkey)

    def send_all(self, event: Event) -> None:
        """Append an event for every member that has not left."""
        for group in (*self.roster.stages, self.roster.validators):
            for member in group:
                self.send(member.hotkey, event)

    def auditable(self, number: int) -> EpochState | None:
        """A sealed epoch whose audits are open, or None."""
        epoch = self.epochs.get(number)
        return epoch if epoch and epoch.seal is not None and not epoch.audits_closed else None

    def miners(self, stage: int | None = None) -> list[Member]:
        """Miners (of one stage) that have not left, in join order."""
        if stage is not None:
            return self.roster.stages[stage]
        return [member for member in self.roster.miners if not member.left]

    def validators(self) -> list[Member]:
        """Validators that are live."""
        return [member for member in self.roster.validators if member.live]

    def able(self, member: Member) -> bool:
        """Whether a miner can do its work of the current epoch: live, not late, and with the base."""
        return member.live and not member.stalled and self.holds_start(member)

    def holds_start(self, member: Member) -> bool:
        """Whether a miner's newest base is one that the current epoch may be trained beside."""
        return self.anchor <= member.ready_epoch <= self.epoch

    def holding(self, stage: int) -> int:
        """Number of live miners of a stage that `holds_start`."""
        return sum(self.roster.holding(stage, n) for n in range(self.anchor, self.epoch + 1))

    def active(self, stage: int, step: int) -> list[Member]:
        """Miners that can be given work of `step` of the current epoch at `stage`."""
        return [m for m in self.roster.stages[stage] if self.able(m) and self.takes_part(m, step)]

    def takes_part(self, member: Member, step: int) -> bool:
        """Whether a miner was admitted to the current epoch in time for `step`."""
        return member.joined is not None and member.joined <= (self.epoch, step)

    def start_clock(self, member: Member, op: PendingKey) -> None:
        """The op's inputs are there: its deadline runs from now, if it does not run yet."""
        member.pending.setdefault(op, self.now)
        self.clocks.arm(member)

    def open_microbatch(self, at: tuple[int, int]) -> tuple[PlannedStep, MicrobatchState]:
        """An open step of the current epoch and one of its microbatches, by (step, microbatch)."""
        step = self.current.steps[at[0]]
        return step, step.microbatches[at[1]]

    def look_at(self, member: Member) -> None:
        """Have everything looked at again that depends on whether this member is there and able to work."""
        changed = self.changed
        self.dirty = True
        changed.keepers = changed.keepers or not member.live
        if member.role is not Role.MINER:
            return
        self.clocks.arm(member)
        for group in (changed.offers, changed.admissions, changed.stranded):
            group[member.hotkey] = member
        changed.claims |= dict.fromkeys((n, member.stage) for n in range(self.anchor, self.epoch + 2))
        changed.behind.add(member.stage)
        changed.parts |= member.merging
        if member.live:
            changed.parts |= changed.unmanned
            changed.unmanned = set()
        for epoch in self.awaiting():
            epoch.merges[member.stage].expect(member)
        changed.contributions.add(member.stage)

    def awaiting(self) -> list[EpochState]:
        """Epochs whose steps are closed, and that are not merged: the earlier one is being merged."""
        near = (self.epochs.get(number) for number in (self.epoch - 1, self.epoch))
        return [each for each in near if each is not None and each.is_awaited]

    @property
    def newest_runnable(self) -> int:
        """The last step whose weights exist once all closed steps have been applied."""
        return self.current.closed_steps + (self.spec.schedule.pipeline is Pipeline.DELAYED)
