"""State of one epoch: its steps and microbatches, its merge, and its audits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from struct import Struct
from typing import Final, NamedTuple

from iota.protocol.events import (
    Accusation,
    EpochClose,
    EvidenceMissed,
    EvidenceReady,
    MergeAssign,
    MergeReady,
    Reroute,
)
from iota.protocol.frames import Direction, StoredObject
from iota.protocol.merges import LeftOut, merge_output
from iota.protocol.merkle import EMPTY, MerkleFrontier
from iota.protocol.records import Word
from orchestrator.coordinator.given_ops import GivenOps
from orchestrator.coordinator.member import Member, Owed
from orchestrator.coordinator.verdict_log import VerdictLog
from orchestrator.coordinator.waiting import Waiting


class Ending(StrEnum):
    """How a microbatch ended."""

    SETTLED = "settled"
    DROPPED = "dropped"


Stored = tuple[int, str, int, str | None]
"""Attempt, digest and bytes of a frame, and the receiver that has acknowledged it; None for the store."""
FramePlace = tuple[int, int, Direction]
"""Microbatch, the stage that makes a frame of it, and the frame's direction."""


@dataclass(slots=True)
class Place:
    """One microbatch at one stage: the replica that has it, and the frames that are delivered from there.

    A frame is delivered when it is in the store, or kept by the replica that is to have it now: one that
    another keeps is forgotten.

    There is one for each op, so it is small, and has nothing in it that the garbage collector follows.
    """

    miner: str
    attempt: int = 0
    forward: Stored | None = None
    """The delivered frame towards the next stage."""
    backward: Stored | None = None
    """The delivered frame towards the stage before."""
    counted: bool = False
    """A gradient of it stands in a miner's sum. Unset where the miner loses its sum."""
    earlier: tuple[tuple[str, int], ...] = ()
    """The (miner, attempt) that had this place before."""
    forward_output: tuple[int, str] | None = None
    """Attempt and output of the newest receipt of an op that sends a frame towards the next stage."""
    backward_output: tuple[int, str] | None = None
    """The same towards the stage before."""

    def frame(self, direction: Direction) -> Stored | None:
        """The delivered frame in one direction."""
        return self.forward if direction is Direction.FORWARD else self.backward

    def store(self, direction: Direction, stored: Stored | None) -> None:
        """Set the delivered frame in one direction, or forget it."""
        if direction is Direction.FORWARD:
            self.forward = stored
        else:
            self.backward = stored

    def receipt(self, direction: Direction, output: str) -> None:
        """Note what the present attempt signed as the payload that it sends in one direction."""
        if direction is Direction.FORWARD:
            self.forward_output = (self.attempt, output)
        else:
            self.backward_output = (self.attempt, output)

    def output(self, direction: Direction, attempt: int) -> str | None:
        """What an attempt signed as its payload; None if that is not known."""
        signed = self.forward_output if direction is Direction.FORWARD else self.backward_output
        return signed[1] if signed is not None and signed[0] == attempt else None

    def had(self) -> tuple[tuple[str, int], ...]:
        """Every (miner, attempt) that this place was given to."""
        return (*self.earlier, (self.miner, self.attempt))


@dataclass(slots=True)
class MicrobatchState:
    """One microbatch on its route."""

    index: int
    places: list[Place]
    """By stage."""
    uncounted: int
    """Stages whose gradient stands in no sum yet. Of a held-out one: whose op has no receipt."""
    inputs: dict[int, int] = field(default_factory=dict)
    """Of a held-out one: stage -> attempt of the frame that its counted op read."""
    heldout: bool = False
    """Its `places` are counted with the receipt of their one op, FORWARD or EVAL."""
    next_attempt: int = 1
    """Counts attempts over all stages; attempt 0 is the planned route."""
    ended: Ending | None = None


_PAIR: Final = Struct("<II")


def count_pair(counted: bytearray, microbatch: int, attempt: int) -> None:
    """Add a (microbatch, attempt) to a list in `PlannedStep.order`."""
    counted += _PAIR.pack(microbatch, attempt)


def counted_pairs(counted: bytearray) -> list[tuple[int, int]]:
    """The (microbatch, attempt) of a list in `PlannedStep.order`."""
    return list(_PAIR.iter_unpack(counted))


@dataclass
class Denial:
    """A receiver's word that it cannot use a frame that it keeps."""

    receiver: str
    asked: bool = False
    """Whether the frame's maker was asked to store it: not before it has said that the frame is kept."""


@dataclass
class PlannedStep:
    """One planned step. Once it is closed, `microbatches` is empty."""

    number: int
    learning_rate: float
    root: str
    """Of the plan (`iota.protocol.plans`)."""
    microbatches: list[MicrobatchState]
    open: int
    """Microbatches that have not ended."""
    given: GivenOps
    order: dict[str, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    """miner -> each (microbatch, attempt) that is counted, in the order of its receipts: see `counted_pairs`.
    There is one for each miner and step, so it is bytes, which the garbage collector need not follow."""
    losses: dict[int, float] = field(default_factory=dict)
    """microbatch -> the loss of its counted LOSS op (nats a token)."""
    heldout: dict[int, float] = field(default_factory=dict)
    """Held-out microbatch -> the loss of its EVAL (nats a token)."""
    heldout_open: int = 0
    """Those of the open ones that are held out."""
    in_store_too: set[FramePlace] = field(default_factory=set)
    """Frames that their receivers keep and that are in the store too, of which these were not told: few."""
    denied: dict[tuple[FramePlace, int], Denial] = field(default_factory=dict)
    """(frame, attempt) -> who keeps it and cannot use it: it is to come through the store."""
    heldout_since: tuple[float, float] | None = None
    """Since when they alone are open, and since when none of their ops has ended; None before that."""


class Carried(NamedTuple):
    """What a contributor to an epoch's merges may begin the next epoch with; None where the run has none."""

    moments: str | None
    """Root of its moments."""
    feedback: str | None
    """Root of its error feedback."""
    began: tuple[StoredObject, ...] = ()
    """With overlap: its contribution, which its own start is made of; empty until it is in the merge."""


@dataclass(slots=True)
class Life:
    """One life of a miner in an epoch, from the base on: its first, or after it took the base anew."""

    joined: int
    """The step at which its version was the base."""
    device: str
    """The device class that its receipts name."""
    next_step: int
    """The step whose STEP it receipts next."""
    next_commit: int | None
    """The version whose COMMIT it receipts next; None after that of the epoch's last."""
    began: float
    """Time at which it began (Unix seconds)."""
    carries: bool = False
    """It began with what it ended the epoch before with; with overlap, with its own start."""
    void: bool = False
    """Its own start is made of a contribution that is not in the merge: nothing of this life is paid."""
    committed: int | None = None
    """The newest version whose COMMIT is receipted."""
    moments: str = EMPTY
    """Root of the moments of that COMMIT."""
    feedback: str = EMPTY
    """Root of its error feedback."""
    first_receipt: int = 0
    """Seq of its first receipt of the epoch; 0 before that."""


@dataclass(frozen=True)
class Copy:
    """One result of merging a part. Two copies agree if their outputs are equal."""

    stored: StoredObject
    left_out: Mapping[str, LeftOut]

    @property
    def output(self) -> str:
        """What the MERGE receipt of this copy has as its output."""
        return merge_output(self.stored.digest, self.left_out)


@dataclass
class PartMerge:
    """The merge of one partition."""

    assign: MergeAssign
    seed: str
    """What its mergers are drawn by, with the number of the draw."""
    draws: int = 0
    """Draws so far."""
    alone: bool = False
    """The newest draw found no further miner."""
    mergers: list[str] = field(default_factory=list)
    """Assigned miners."""
    results: dict[str, Copy] = field(default_factory=dict)
    """merger -> its copy, as it reported it."""
    outputs: dict[str, str] = field(default_factory=dict)
    """merger -> the output of its MERGE receipt."""
    agreed: Copy | None = None
    remerged: Copy | None = None
    """What the orchestrator's own merge gave, once it has merged the part itself."""

    def copies(self) -> dict[str, Copy]:
        """The copies that count: those that their mergers have signed in a MERGE receipt."""
        return {h: copy for h, copy in self.results.items() if self.outputs.get(h) == copy.output}


@dataclass
class StageMerge:
    """The merge of one stage."""

    since: float = 0.0
    """The deadline of its pseudo-gradients runs from here."""
    deserted: bool = False
    """At the deadline nobody was there who could give one, so the run pauses."""
    extended: bool = False
    """Somebody came back then, and the deadline began again, which it does once."""
    deltas: dict[str, tuple[StoredObject, ...]] = field(default_factory=dict)
    """miner -> the stored parts of its pseudo-gradient."""
    early: dict[str, tuple[StoredObject, ...]] = field(default_factory=dict)
    """Those of miners that owe receipts of a STEP or a COMMIT: they count once these are stored."""
    quorum_s: float | None = None
    """How long the first half of the pseudo-gradients took; None before they are there."""
    fixed: bool = False
    """The contributions are decided: later pseudo-gradients are ignored."""
    parts: list[PartMerge] = field(default_factory=list)
    """By partition; empty where the stage lost all of its work."""
    left_out: dict[tuple[str, LeftOut], list[int]] = field(default_factory=dict)
    """(miner, why) -> the agreed parts that leave its pseudo-gradient out."""
    owing: set[str] = field(default_factory=set)
    """Miners whose pseudo-gradient is needed and not there, live or not. Once fixed: who gave none."""
    awaited: set[str] = field(default_factory=set)
    """Those of them that are live."""
    uncommitted: set[str] = field(default_factory=set)
    """Miners that owed one, and have not committed to the epoch's last version."""
    agreed: int = 0
    """Parts that are agreed."""
    ready: MergeReady | None = None

    def expect(self, member: Member) -> None:
        """Wait for the member's pseudo-gradient if it is needed and the member is live, else do not."""
        if member.live and member.hotkey in self.owing:
            self.awaited.add(member.hotkey)
        else:
            self.awaited.discard(member.hotkey)


@dataclass
class EpochState:
    """One epoch, from its first plan to the close of its audits."""

    epoch: int
    carried: dict[str, Carried] = field(default_factory=dict)
    """Miner whose last pseudo-gradient was merged -> what carries over, in a run where anything does. With
    overlap: whose pseudo-gradient is being merged; that of the epoch before as `ended`."""
    ended: dict[str, Carried] = field(default_factory=dict)
    """With overlap: miner that has committed to its last version -> what it may begin the next epoch with."""
    steps: list[PlannedStep] = field(default_factory=list)
    closed_steps: int = 0
    """Steps close in order: `steps[:closed_steps]` are closed."""
    reroutes: list[Reroute] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    """miner -> its counted microbatches."""
    heldout: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Settled held-out microbatch -> the attempt that counts at each stage."""
    merges: list[StageMerge] = field(default_factory=list)
    """By stage; empty until all steps are closed. A merge begins when that of the epoch before is over."""
    unfixed: set[int] = field(default_factory=set)
    """Stages whose contributions are not decided."""
    unassigned: set[int] = field(default_factory=set)
    """Stages whose contributions are decided, and whose mergers are not drawn yet."""
    merge_seed: str | None = None
    """Hash of the block by which mergers are drawn; None before it is there."""
    workers: list[Member] = field(default_factory=list)
    """Those whom mergers are drawn from: their work counted in this epoch or the one before."""
    unworked: list[Member] = field(default_factory=list)
    """The others that take part in the epoch when mergers are drawn."""
    late_mergers: set[str] = field(default_factory=set)
    """Miners that did not merge a part by its deadline: others are drawn in their place, if there are any."""
    unmerged: int = 0
    """Stages whose merge is not ready."""
    unagreed: Waiting[tuple[int, int]] = field(default_factory=Waiting)
    """(stage, part) that are not agreed, since their last assignment."""
    unread: dict[tuple[int, int], str] = field(default_factory=dict)
    """(stage, part) whose copies agree -> the merger whose copy the orchestrator is to read."""
    disputed: dict[tuple[int, int], None] = field(default_factory=dict)
    """(stage, part) that the orchestrator is to merge itself: copies differ, or too few have come."""
    merging_since: float = 0.0
    """Time at which its merge began; 0 before."""
    merging_block: int = 0
    """The newest known block when the last step closed."""
    uploads_since: float | None = None
    """When replicas could begin to store pseudo-gradients; None if server or store were away since."""
    receipts: dict[str, MerkleFrontier] = field(default_factory=lambda: defaultdict(MerkleFrontier))
    """miner -> the Merkle tree of its receipts of this epoch."""
    last_receipt: dict[str, int] = field(default_factory=dict)
    """miner -> seq of the newest of these."""
    lives: dict[str, list[Life]] = field(default_factory=dict)
    """miner -> its lives, in order."""
    stages: dict[str, int] = field(default_factory=dict)
    """miner -> its stage, of every miner that took part."""
    withdrawn: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """miner -> microbatches that were taken from it because it was lost or late."""
    silent: list[Member] = field(default_factory=list)
    """Replicas that did not make the next base by the deadline, and count as slow once the merge is over."""
    merged_at: float = 0.0
    """Time at which the merges of all stages were ready; 0 before."""
    merged_block: int | None = None
    """The head at that time: the seal waits for a newer one."""
    unproven: dict[str, int] = field(default_factory=dict)
    """miner -> its words against frames that the frames did not bear out, and on a base that was false."""
    denied: dict[str, int] = field(default_factory=dict)
    """miner -> frames that it kept and said that it cannot use."""
    contradicted: set[str] = field(default_factory=set)
    """Miners that announced one frame with two digests."""
    words: dict[str, tuple[Word, ...]] = field(default_factory=dict)
    """miner -> its words on NaN that stand in the record."""
    doubted: set[tuple[int, int, int]] = field(default_factory=set)
    """(step, microbatch, stage) where a replica said NaN of finite frames."""
    seal: EpochClose | None = None
    sealed_at: float = 0.0
    told: frozenset[str] = frozenset()
    """Validators that were sent the seal: who joins later does not audit this epoch."""
    committed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """miner -> the first and the newest version that its last life had committed to at the seal."""
    wanted: dict[str, dict[Owed, set[str]]] = field(default_factory=dict)
    """miner -> its evidence that was asked for -> the validators that asked."""
    delivered: dict[tuple[str, Owed], EvidenceReady | EvidenceMissed] = field(default_factory=dict)
    """(miner, its evidence) -> whether it was delivered in time, once that is known."""
    links: dict[str, str] = field(default_factory=dict)
    """validator -> the link that it revealed for this epoch."""
    done: set[str] = field(default_factory=set)
    """Validators that have filed all verdicts of this epoch."""
    filed: dict[tuple[str, str], set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    """(validator, miner) -> (kind of audit, seq) of its verdicts."""
    verdicts: VerdictLog = field(default_factory=VerdictLog)
    accusations: list[Accusation] = field(default_factory=list)
    """What each validator but its author is told of, to examine it. Few: `auditing.MAX_ACCUSATIONS`."""
    accused: Counter[str] = field(default_factory=Counter)
    """validator -> its accusations."""
    audits_closed: bool = False

    @property
    def is_awaited(self) -> bool:
        """Whether its steps are closed and it is not merged: pseudo-gradients are stored, or being merged."""
        return bool(self.merges) and self.merged_block is None

    def open_steps(self) -> list[PlannedStep]:
        """Planned steps that are not closed, in order."""
        return self.steps[self.closed_steps :]
