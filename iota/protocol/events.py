"""What the orchestrator tells a node. A node's events are numbered; `exchange` resumes from any number.

Events hold no URLs: the server adds presigned ones when it delivers an event (`Delivered.urls`,
by object key), so that replaying the journal gives the same events to the byte.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from iota.protocol.messages import FrameNotice, Hotkey, StoredObject
from iota.spec import Count, Frozen, Hex32, Small


class EventKind(StrEnum):
    ADMIT = "admit"
    LOAD_BASE = "load_base"
    PLAN = "plan"
    REROUTE = "reroute"
    FRAME_READY = "frame_ready"
    DROP = "drop"
    STEP_CLOSE = "step_close"
    EPOCH_CLOSE = "epoch_close"
    MERGE_ASSIGN = "merge_assign"
    MERGE_READY = "merge_ready"
    BASE_ASSIGN = "base_assign"
    AUDIT_REQUEST = "audit_request"
    SNAPSHOT_READY = "snapshot_ready"
    AUDITS_CLOSED = "audits_closed"
    RUN_END = "run_end"


class Admit(Frozen):
    """The replica takes part from `step` of `epoch` on; its version there is the base."""

    kind: Literal[EventKind.ADMIT] = EventKind.ADMIT
    epoch: Small
    step: Small


class LoadBase(Frozen):
    """Load the base of `epoch`: from the seed when `parts` is empty and epoch is 0, else from the store."""

    kind: Literal[EventKind.LOAD_BASE] = EventKind.LOAD_BASE
    epoch: Small
    digest: Hex32 | None
    """None: nobody has reported it yet (epoch 0 only)."""
    parts: tuple[StoredObject, ...] = ()


class Plan(Frozen):
    """The public plan of one step: one route for each microbatch."""

    kind: Literal[EventKind.PLAN] = EventKind.PLAN
    epoch: Small
    step: Small
    learning_rate: float
    members: tuple[Hotkey, ...]
    routes: tuple[tuple[Small, ...], ...]
    """routes[i][s]: index into `members` of the replica of stage s for microbatch i (attempt 0)."""

    def miner(self, microbatch: int, stage: int) -> str:
        return self.members[self.routes[microbatch][stage]]


class Reroute(Frozen):
    """`miner` takes over a microbatch at one stage; whoever had it is relieved."""

    kind: Literal[EventKind.REROUTE] = EventKind.REROUTE
    epoch: Small
    step: Small
    microbatch: Small
    stage: Small
    attempt: Small
    miner: Hotkey
    replaces: Hotkey
    route: tuple[Hotkey, ...]
    """The replica of each stage from now on."""
    send_forward: bool
    """False: the next stage has its input already; recompute the forward for the backward only."""


class FrameReady(Frozen):
    """A frame for this node is stored."""

    kind: Literal[EventKind.FRAME_READY] = EventKind.FRAME_READY
    notice: FrameNotice
    sender: Hotkey


class Drop(Frozen):
    """The microbatch has ended without settling; whoever has not run its backward forgets it."""

    kind: Literal[EventKind.DROP] = EventKind.DROP
    epoch: Small
    step: Small
    microbatch: Small


class Counted(Frozen):
    microbatch: Small
    attempt: Small


class StepClose(Frozen):
    """Every microbatch of the step has ended; `counted` is A(t, s, r) of the receiving replica, in order."""

    kind: Literal[EventKind.STEP_CLOSE] = EventKind.STEP_CLOSE
    epoch: Small
    step: Small
    counted: tuple[Counted, ...]
    learning_rate: float


class EpochClose(Frozen):
    """The seal: the root of all receipts of the epoch, and the block that the draw will use."""

    kind: Literal[EventKind.EPOCH_CLOSE] = EventKind.EPOCH_CLOSE
    epoch: Small
    root: Hex32
    receipts: Count
    block: Count


class Contribution(Frozen):
    hotkey: Hotkey
    tokens: Count
    stored: StoredObject


class MergeAssign(Frozen):
    """Merge one partition of one stage."""

    kind: Literal[EventKind.MERGE_ASSIGN] = EventKind.MERGE_ASSIGN
    epoch: Small
    stage: Small
    part: Small
    contributions: tuple[Contribution, ...]
    """In order of hotkey."""


class MergeReady(Frozen):
    """All parts of the merged pseudo-gradient of the receiver's stage: apply the outer step.

    Without parts the stage lost all its work: the next base is this one.
    """

    kind: Literal[EventKind.MERGE_READY] = EventKind.MERGE_READY
    epoch: Small
    stage: Small
    parts: tuple[StoredObject, ...]


class BaseAssign(Frozen):
    """Store the base of `epoch` of your stage for those who join."""

    kind: Literal[EventKind.BASE_ASSIGN] = EventKind.BASE_ASSIGN
    epoch: Small


class AuditRequest(Frozen):
    """A validator's draw fell on this replica: store (weights, moments) of `version` of `epoch`."""

    kind: Literal[EventKind.AUDIT_REQUEST] = EventKind.AUDIT_REQUEST
    epoch: Small
    version: Small


class SnapshotReady(Frozen):
    kind: Literal[EventKind.SNAPSHOT_READY] = EventKind.SNAPSHOT_READY
    epoch: Small
    miner: Hotkey
    version: Small
    stored: StoredObject


class AuditsClosed(Frozen):
    """No more audits of this epoch: what was kept for them may go."""

    kind: Literal[EventKind.AUDITS_CLOSED] = EventKind.AUDITS_CLOSED
    epoch: Small


class RunEnd(Frozen):
    kind: Literal[EventKind.RUN_END] = EventKind.RUN_END
    reason: Annotated[str, Field(max_length=200)] = "all epochs are done"


Event = Annotated[
    Admit
    | LoadBase
    | Plan
    | Reroute
    | FrameReady
    | Drop
    | StepClose
    | EpochClose
    | MergeAssign
    | MergeReady
    | BaseAssign
    | AuditRequest
    | SnapshotReady
    | AuditsClosed
    | RunEnd,
    Field(discriminator="kind"),
]


class Delivered(Frozen):
    """An event with its number and the URLs that its reader needs, by object key."""

    seq: Count
    event: Event
    urls: dict[str, str] = Field(default_factory=dict)


class ExchangeReply(Frozen):
    events: tuple[Delivered, ...]
    receipts: Count
    """Receipts of this miner that are stored (acknowledged) so far."""
