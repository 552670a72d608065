"""Every message between a node and the orchestrator, as strict frozen models.

A message from the network is parsed by these models and by nothing else; bounds on every
list and string keep a hostile body from costing more than its own bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from iota.protocol.receipts import GENESIS, OpKind, ReceiptBatch
from iota.spec import Count, Fraction, Frozen, Hex32, RunSpec, Small

PROTOCOL_VERSION = 1
"""The form of requests, replies, events, records and bases. A node that speaks another is refused."""
MAX_PARTS = 4096
"""Partitions of one stage."""
MAX_FRAMES = 512
MAX_REPORTS = 128
MAX_WEIGHTS = 4096
MAX_ADDRESSES = 8
MAX_REASON = 300
"""Characters of the reason why a frame is missing."""

Hotkey = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{46,48}$")]
Address = Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,512}$")]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]


class Role(StrEnum):
    MINER = "miner"
    VALIDATOR = "validator"


class Direction(StrEnum):
    FORWARD = "f"
    BACKWARD = "b"

    @classmethod
    def of(cls, kind: OpKind) -> Direction:
        """Which way the frame goes that an op on a microbatch makes."""
        return cls.FORWARD if kind is OpKind.FORWARD else cls.BACKWARD

    def destination(self, stage: int, stages: int) -> int | None:
        """The stage that a frame of `stage` goes to; None where it would leave the model."""
        towards = stage + (1 if self is Direction.FORWARD else -1)
        return towards if 0 <= towards < stages else None


class FrameName(Frozen):
    """A boundary tensor: which microbatch, who made it (stage and its attempt), which way it goes."""

    epoch: Small
    step: Small
    microbatch: Small
    attempt: Small
    stage: Small
    direction: Direction

    def __str__(self) -> str:
        place = f"{self.microbatch}.{self.attempt}/{self.stage}.{self.direction}"
        return f"{self.epoch}/{self.step}/{place}"


class FrameNotice(Frozen):
    """'This frame is stored': name, digest of the whole frame's bytes, size in bytes."""

    name: FrameName
    digest: Hex32
    size: Small


class StoredObject(Frozen):
    key: Key
    digest: Hex32
    size: Count


# ---- requests ---------------------------------------------------------------------------------


class Capabilities(Frozen):
    device: Annotated[str, Field(max_length=200)]
    """Device class: ops of equal classes are comparable to the bit."""
    memory: Count
    """Bytes that compute may use."""
    flops: Annotated[float, Field(ge=0)]
    """Measured FLOP/s of a stage-shaped matrix product."""


class JoinRequest(Frozen):
    role: Role
    versions: tuple[Small, ...] = Field(max_length=16)
    capabilities: Capabilities
    receipts: Count = 0
    """Receipts in the miner's own log: what it can continue from. 0 for a fresh disk."""
    epoch: Small | None = None
    """Epoch whose base the miner holds on disk."""
    addresses: tuple[Address, ...] = Field((), max_length=MAX_ADDRESSES)
    """Where other members may reach the node, each in the form of its transport. Public."""
    link: Hex32 | None = None
    """Validators: the tip of the hash chain that they committed on the chain."""


class JoinReply(Frozen):
    run: Hex32
    spec: RunSpec
    orchestrator: Hotkey
    version: Small
    stage: Annotated[int, Field(ge=-1, lt=2**31)]
    """-1 for a validator."""
    cursor: Count
    """Events after this one are news to the node."""
    receipts: Count
    """Receipts of this hotkey that are stored."""
    head: Hex32 = GENESIS
    """Digest of the last of them: the next receipt names it as its previous one."""
    resume: bool
    """True: the node's place was kept and its events since the epoch's start follow."""
    manifest_url: Annotated[str, Field(max_length=4096)]


class ReportKind(StrEnum):
    READY = "ready"
    DELTA = "delta"
    MERGED = "merged"
    BASE = "base"
    BAD_VALUE = "bad_value"
    FRAME_MISSING = "frame_missing"
    SNAPSHOT = "snapshot"
    REVEAL = "reveal"
    SNAPSHOT_WANTED = "snapshot_wanted"
    VERDICT = "verdict"
    AUDITS_DONE = "audits_done"
    HELDOUT = "heldout"
    WEIGHTS = "weights"


class Ready(Frozen):
    """A replica holds the base of `epoch`, with this digest of (W, m)."""

    kind: Literal[ReportKind.READY] = ReportKind.READY
    epoch: Small
    digest: Hex32


class Delta(Frozen):
    """The parts of a replica's pseudo-gradient are stored."""

    kind: Literal[ReportKind.DELTA] = ReportKind.DELTA
    epoch: Small
    parts: tuple[StoredObject, ...] = Field(max_length=MAX_PARTS, fail_fast=True)


class Merged(Frozen):
    kind: Literal[ReportKind.MERGED] = ReportKind.MERGED
    epoch: Small
    stage: Small
    part: Small
    stored: StoredObject


class BaseStored(Frozen):
    """The base of `epoch` of this replica's stage is in the store."""

    kind: Literal[ReportKind.BASE] = ReportKind.BASE
    epoch: Small
    digest: Hex32
    parts: tuple[StoredObject, ...] = Field(max_length=MAX_PARTS, fail_fast=True)


class BadValue(Frozen):
    """NaN or Inf in a loss, a gradient or an incoming tensor of this microbatch."""

    kind: Literal[ReportKind.BAD_VALUE] = ReportKind.BAD_VALUE
    epoch: Small
    step: Small
    microbatch: Small


class FrameMissing(Frozen):
    """A frame that was announced cannot be had, or is not what its notice says."""

    kind: Literal[ReportKind.FRAME_MISSING] = ReportKind.FRAME_MISSING
    name: FrameName
    reason: Annotated[str, Field(max_length=MAX_REASON)]


class SnapshotStored(Frozen):
    kind: Literal[ReportKind.SNAPSHOT] = ReportKind.SNAPSHOT
    epoch: Small
    version: Small
    stored: StoredObject


class Reveal(Frozen):
    """A validator reveals the next link of its committed chain for the sealed `epoch`."""

    kind: Literal[ReportKind.REVEAL] = ReportKind.REVEAL
    epoch: Small
    link: Hex32


class SnapshotWanted(Frozen):
    """A validator needs (weights, moments) of `miner` at `version` of `epoch`."""

    kind: Literal[ReportKind.SNAPSHOT_WANTED] = ReportKind.SNAPSHOT_WANTED
    epoch: Small
    miner: Hotkey
    version: Small


class AuditKind(StrEnum):
    OP = "op"
    STEP = "step"
    EPOCH = "epoch"


class Outcome(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Verdict(Frozen):
    """A signed result of one audit, with all that is needed to repeat it."""

    kind: Literal[ReportKind.VERDICT] = ReportKind.VERDICT
    epoch: Small
    miner: Hotkey
    audit: AuditKind
    outcome: Outcome
    seq: Count
    """Receipt that was audited (the first that failed, where one did)."""
    profile: Annotated[str, Field(max_length=200)]
    """Tolerance profile that the comparison used."""
    expected: Annotated[str, Field(max_length=1000)] = ""
    found: Annotated[str, Field(max_length=1000)] = ""
    reason: Annotated[str, Field(max_length=500)] = ""
    signature: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")] = ""


class AuditsDone(Frozen):
    """This validator has filed every verdict that its draw for `epoch` demands."""

    kind: Literal[ReportKind.AUDITS_DONE] = ReportKind.AUDITS_DONE
    epoch: Small


class Heldout(Frozen):
    """Held-out loss (nats a token) of the base of `epoch`, measured stage by stage."""

    kind: Literal[ReportKind.HELDOUT] = ReportKind.HELDOUT
    epoch: Small
    loss: Annotated[float, Field(ge=0)]
    before_merge: Annotated[float, Field(ge=0)] | None = None


class WeightsSet(Frozen):
    """A validator tells the world (the chain is what counts) which weights it set, and why it used time."""

    kind: Literal[ReportKind.WEIGHTS] = ReportKind.WEIGHTS
    block: Count
    weights: dict[Hotkey, Fraction] = Field(max_length=MAX_WEIGHTS)
    compute_share: Annotated[float, Field(ge=0)]


Report = Annotated[
    Ready
    | Delta
    | Merged
    | BaseStored
    | BadValue
    | FrameMissing
    | SnapshotStored
    | Reveal
    | SnapshotWanted
    | Verdict
    | AuditsDone
    | Heldout
    | WeightsSet,
    Field(discriminator="kind"),
]


class NodeStatus(Frozen):
    """Status of a node, sent with an exchange. Informational only: nothing is decided by it."""

    state: Annotated[str, Field(max_length=200)] = ""
    tokens_per_second: Annotated[float, Field(ge=0)] = 0.0
    seconds: dict[Annotated[str, Field(max_length=32)], Seconds] = Field(default_factory=dict, max_length=32)
    """Cumulative seconds by activity: compute, wait, serialise, transfer, replay."""
    memory: Count = 0


class ExchangeRequest(Frozen):
    """Everything a node has to say. May be repeated; each part is recognised by its name."""

    cursor: Count
    wait_s: Annotated[float, Field(ge=0, le=30)] = 5.0
    receipts: ReceiptBatch | None = None
    frames: tuple[FrameNotice, ...] = Field((), max_length=MAX_FRAMES, fail_fast=True)
    reports: tuple[Report, ...] = Field((), max_length=MAX_REPORTS, fail_fast=True)
    status: NodeStatus | None = None


class LeaveRequest(Frozen):
    reason: Annotated[str, Field(max_length=200)] = ""


class Method(StrEnum):
    PUT = "PUT"
    GET = "GET"


class ObjectRequest(Frozen):
    method: Method
    key: Key
    size: Count = 0
    """Exact size in bytes; PUT only."""


class ObjectReply(Frozen):
    url: Annotated[str, Field(max_length=4096)]
    expires: float
