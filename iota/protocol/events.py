"""Events from the orchestrator to one node, numbered from 1; an exchange resumes at any number.

Events hold neither URLs nor signatures. The server adds them when it delivers an event (`Delivered`), so that
a replay of the journal gives the same events byte for byte.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from iota.protocol.frames import EvidenceItem, FrameName, FrameNotice, Key, StoredObject
from iota.protocol.messages import Hotkey, Verdict
from iota.protocol.plans import PlanProof, PlanShare
from iota.spec import Count, Frozen, Hex32, Listed, Small


class EventKind(StrEnum):
    """Names of events on the wire."""

    ADMIT = "admit"
    LOAD_BASE = "load_base"
    PLAN = "plan"
    REROUTE = "reroute"
    FRAME_READY = "frame_ready"
    STORE_FRAME = "store_frame"
    DROP = "drop"
    STEP_CLOSE = "step_close"
    EPOCH_CLOSE = "epoch_close"
    MERGE_ASSIGN = "merge_assign"
    MERGE_READY = "merge_ready"
    BASE_ASSIGN = "base_assign"
    EVIDENCE_REQUEST = "evidence_request"
    EVIDENCE_READY = "evidence_ready"
    EVIDENCE_MISSED = "evidence_missed"
    ACCUSATION = "accusation"
    AUDITS_CLOSED = "audits_closed"
    RUN_END = "run_end"


class Admit(Frozen):
    """The replica takes part in the epoch from `step` on; its weight version there is the base."""

    kind: Literal[EventKind.ADMIT] = EventKind.ADMIT
    epoch: Small
    step: Small
    carries: bool
    """Its pseudo-gradient of the epoch before was merged: it begins with the moments and the error feedback
    that it ended that with, where the run carries any, and else with none. So nothing that it committed to
    late comes back."""


class LoadBase(Frozen):
    """Load the base of `epoch`: from the seed when `parts` is empty and epoch is 0, else from the store.

    A run that starts from existing weights has parts in epoch 0 too.
    """

    kind: Literal[EventKind.LOAD_BASE] = EventKind.LOAD_BASE
    epoch: Small
    digest: Hex32 | None
    """Digest of (W, m). None while no replica has reported one (epoch 0 only)."""
    parts: Listed[StoredObject] = ()


class Plan(Frozen):
    """The receiver's share of a step's plan, under the plan's root."""

    kind: Literal[EventKind.PLAN] = EventKind.PLAN
    share: PlanShare
    proof: PlanProof


class Reroute(Frozen):
    """`miner` takes over a microbatch at one stage from `replaces`, as a new attempt.

    It goes to both, and to the replicas of the stages before and after.
    """

    kind: Literal[EventKind.REROUTE] = EventKind.REROUTE
    epoch: Small
    step: Small
    microbatch: Small
    stage: Small
    attempt: Small
    miner: Hotkey
    replaces: Hotkey
    before: Hotkey | None
    """The replica of the stage before; None at stage 0."""
    after: Hotkey | None
    """The replica of the next stage; None at the last one."""
    send_forward: bool
    """False where the next stage has its input already: the forward then serves the backward only."""


class FrameReady(Frozen):
    """A frame for the receiving replica is stored."""

    kind: Literal[EventKind.FRAME_READY] = EventKind.FRAME_READY
    notice: FrameNotice
    sender: Hotkey


class StoreFrame(Frozen):
    """A frame that this miner pushed is to be put into the object store: its receiver cannot use it."""

    kind: Literal[EventKind.STORE_FRAME] = EventKind.STORE_FRAME
    name: FrameName


class Drop(Frozen):
    """Nothing more of the microbatch is wanted: replicas that have not run its backward must not run it.

    It has ended without settling; or it has settled by attempts of others.
    """

    kind: Literal[EventKind.DROP] = EventKind.DROP
    epoch: Small
    step: Small
    microbatch: Small


class StepClose(Frozen):
    """Every microbatch of the step has ended: the replica runs STEP.

    `counted` is A(t, s, r) of training.md for the receiving replica: the (microbatch, attempt) of the sum's
    terms, in order.
    """

    kind: Literal[EventKind.STEP_CLOSE] = EventKind.STEP_CLOSE
    epoch: Small
    step: Small
    counted: Listed[tuple[Small, Small]]
    learning_rate: float


class EpochClose(Frozen):
    """The seal of an epoch, which fixes its record, and names the later block from which audits are drawn.

    `iota.protocol.seals` has its signed form.
    """

    kind: Literal[EventKind.EPOCH_CLOSE] = EventKind.EPOCH_CLOSE
    epoch: Small
    root: Hex32
    """Merkle root over the roots of the miners' receipts."""
    receipts: Count
    block: Count
    members: Hex32
    """Merkle root over the miners' parts of the record (`iota.protocol.seals.MemberPart`)."""
    record: Hex32
    """BLAKE3 of the record's bytes (`iota.protocol.records.EpochRecord` as JSON)."""


class Contribution(Frozen):
    """One replica's part of a pseudo-gradient, weighted in the merge by its counted tokens."""

    hotkey: Hotkey
    tokens: Count
    joined: Small
    """Step at which its version was the base: it made the steps from there on."""
    stored: StoredObject


class MergeAssign(Frozen):
    """The receiver is drawn to merge one partition of one stage, which need not be its own stage."""

    kind: Literal[EventKind.MERGE_ASSIGN] = EventKind.MERGE_ASSIGN
    epoch: Small
    stage: Small
    part: Small
    contributions: Listed[Contribution]
    """In order of hotkey, which is the order of the sum."""


class MergeReady(Frozen):
    """The merged pseudo-gradient of the receiver's stage is complete: it applies the outer step.

    No parts mean that the stage lost all work of the epoch: the next base equals the current one.
    """

    kind: Literal[EventKind.MERGE_READY] = EventKind.MERGE_READY
    epoch: Small
    stage: Small
    parts: Listed[StoredObject]


class BaseAssign(Frozen):
    """The receiver is asked to store the base of `epoch` of its stage, from which new replicas start."""

    kind: Literal[EventKind.BASE_ASSIGN] = EventKind.BASE_ASSIGN
    epoch: Small


class EvidenceRequest(Frozen):
    """A validator audits the receiver, which must store a state of `epoch`, or the frames of a step."""

    kind: Literal[EventKind.EVIDENCE_REQUEST] = EventKind.EVIDENCE_REQUEST
    epoch: Small
    item: EvidenceItem
    version: Small
    rank: Small
    """What has a lower rank is to be stored first, and of the same rank what is due first. It is asked for
    again where the rank has become lower."""
    deadline: float
    """Unix seconds, by the size of what is asked for and the line that the miner has shown. It may become
    later without notice, by what is asked for afterwards and has a lower rank."""


class EvidenceReady(Frozen):
    """To a validator: evidence that it asked for is stored."""

    kind: Literal[EventKind.EVIDENCE_READY] = EventKind.EVIDENCE_READY
    epoch: Small
    miner: Hotkey
    item: EvidenceItem
    version: Small
    stored: StoredObject


class EvidenceMissed(Frozen):
    """To a validator: evidence that it asked for was not stored by its deadline, and counts no more.

    The deadline of a miner whose owner has revoked its key is when that was decided: nothing that it stores
    is taken any more.

    The orchestrator decides it once, by its own clock, so that it is the same for all validators.
    """

    kind: Literal[EventKind.EVIDENCE_MISSED] = EventKind.EVIDENCE_MISSED
    epoch: Small
    miner: Hotkey
    item: EvidenceItem
    version: Small
    deadline: float
    """Unix seconds."""
    live: bool
    """Whether the orchestrator heard from the miner then."""
    revoked: bool = False
    """Whether the miner's owner had revoked its key."""


class Accusation(Frozen):
    """To a validator: another one filed a verdict that `accuses`, which counts once it is examined."""

    kind: Literal[EventKind.ACCUSATION] = EventKind.ACCUSATION
    validator: Hotkey
    """Its author."""
    verdict: Verdict


class AuditsClosed(Frozen):
    """The audits of this epoch are over: data that was kept for them may be deleted."""

    kind: Literal[EventKind.AUDITS_CLOSED] = EventKind.AUDITS_CLOSED
    epoch: Small


class RunEnd(Frozen):
    """The run is finished and all its audits are closed; nodes stop."""

    kind: Literal[EventKind.RUN_END] = EventKind.RUN_END
    reason: Annotated[str, Field(max_length=200)] = "all epochs are done"


Event = Annotated[
    Admit
    | LoadBase
    | Plan
    | Reroute
    | FrameReady
    | StoreFrame
    | Drop
    | StepClose
    | EpochClose
    | MergeAssign
    | MergeReady
    | BaseAssign
    | EvidenceRequest
    | EvidenceReady
    | EvidenceMissed
    | Accusation
    | AuditsClosed
    | RunEnd,
    Field(discriminator="kind"),
]


class Delivered(Frozen):
    """An event with its number, and the presigned URLs that its receiver needs, by object key."""

    seq: Count
    event: Event
    urls: dict[str, str] = Field(default_factory=dict)
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")] | None = None
    """The orchestrator's, of a plan (`iota.protocol.plans.signed_root`), of a step's close and of a seal
    (`iota.protocol.seals`); None for any other event."""


class Acknowledgement(Frozen):
    """The orchestrator's signed word on what it has stored of a miner's receipts.

    `iota.protocol.seals` has its signed form. Receipts of an epoch that is not sealed yet belong to its seal.
    """

    receipts: Count
    """Number of the miner's stored receipts."""
    head: Hex32
    """Digest of the last of them."""
    sealed: Count
    """Number of epochs that were sealed at that moment; they are sealed in order, from 0."""
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class ExchangeReply(Frozen):
    """The answer to an exchange: the events after its cursor, and what is acknowledged."""

    events: Listed[Delivered]
    receipts: Count
    """Number of this miner's receipts that are stored, which acknowledges them."""
    acknowledged: Acknowledgement | None = None
    """In the answer to an exchange that carried receipts."""
    missing: tuple[Key, ...] = ()
    """Objects that were announced and that the store does not have: one of each notice or report that was
    not taken because of it. The node stores them again, and says it again."""
