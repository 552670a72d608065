"""Requests, replies and reports between a node and the orchestrator, as strict frozen models.

Messages from the network are parsed by these models only. Every list and string is bounded, so that the cost
of a hostile message is bounded too.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from iota.protocol.fields import Hotkey as Hotkey
from iota.protocol.frames import EvidenceItem, FrameName, FrameNotice, Key, StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.receipts import GENESIS, ReceiptBatch
from iota.protocol.workers import Certificate
from iota.spec import Count, Fraction, Frozen, Hex32, Positive, RunSpec, Small

PROTOCOL_VERSION = 11
"""Version of the form of requests, replies, events, records and bases. Nodes with another one are refused."""
MAX_PARTS = 4096
"""Partitions of one stage."""
MAX_FRAMES = 512
"""Notices in one exchange; a node sends the rest in the next one."""
MAX_REPORTS = 128
"""Reports in one exchange, likewise."""
MAX_WEIGHTS = 4096
"""Miners with a weight: far more than a subnet has uids."""
MAX_REPLICAS = 4096
"""Contributions to one merge."""
MAX_ADDRESSES = 8
"""Addresses of one node."""
MAX_REASON = 300
"""Characters of the reason why a frame is missing."""

Address = Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
"""A network address: printable ASCII, so that logs and terminals can show it."""
Seconds = Annotated[float, Field(ge=0, lt=1e12)]


class Role(StrEnum):
    """The role of a node in the run; a hotkey has one."""

    MINER = "miner"
    VALIDATOR = "validator"


# ---- requests ---------------------------------------------------------------------------------


class Capabilities(Frozen):
    """A node's hardware, as it reports it; unchecked."""

    device: Annotated[str, Field(max_length=200)]
    """Device class: machines of one class give the same bits for the same op."""
    memory: Count
    """Bytes of main memory."""
    flops: Annotated[float, Field(ge=0)]
    """FLOP/s measured with a matrix product."""


class JoinRequest(Frozen):
    """POST /v1/join: of a new node, or of one that has restarted."""

    role: Role
    versions: tuple[Small, ...] = Field(max_length=16)
    """Protocol versions that the node can speak."""
    capabilities: Capabilities
    receipts: Count = 0
    """Receipts in the miner's own log; 0 for an empty disk."""
    epoch: Small | None = None
    """Epoch whose base the miner has on disk."""
    addresses: tuple[Address, ...] = Field((), max_length=MAX_ADDRESSES)
    """Addresses at which other members may reach the node, in the form of its transport. Public."""
    link: Hex32 | None = None
    """Validators: the tip of the hash chain that they committed on the chain."""
    certificate: Certificate | None = None
    """Of a worker; None for a hotkey that works by itself."""
    session: Count = 0
    """A random number of the node's process, which its exchanges name; 0 says none."""


class JoinReply(Frozen):
    """The answer to a join: the run, the node's place in it, and where to continue."""

    run: Hex32
    spec: RunSpec
    orchestrator: Hotkey
    version: Small
    stage: Annotated[int, Field(ge=-1, lt=2**31)]
    """-1 for a validator."""
    cursor: Count
    """Number of the last event that the node has or does not need."""
    receipts: Count
    """Number of this hotkey's stored receipts."""
    head: Hex32 = GENESIS
    """Digest of the last of them, which the next receipt must name as `previous`."""
    resume: bool
    """True: the node continues from its disk, and its events since the epoch's start follow."""
    session: Count = 0
    """The request's."""
    open_epochs: tuple[Small, ...] = ()
    """The epoch in training and those whose audits are open: a miner keeps its evidence of them."""
    manifest_url: Annotated[str, Field(max_length=4096)]


class ReportKind(StrEnum):
    """Names of reports on the wire."""

    READY = "ready"
    DELTA = "delta"
    MERGED = "merged"
    BASE = "base"
    BAD_VALUE = "bad_value"
    FRAME_MISSING = "frame_missing"
    EVIDENCE_STORED = "evidence_stored"
    REVEAL = "reveal"
    EVIDENCE_WANTED = "evidence_wanted"
    VERDICT = "verdict"
    AUDITS_DONE = "audits_done"
    WEIGHTS = "weights"


class Ready(Frozen):
    """A replica holds the base of `epoch`, with this digest of (W, m)."""

    kind: Literal[ReportKind.READY] = ReportKind.READY
    epoch: Small
    digest: Hex32


class Delta(Frozen):
    """All parts of a replica's pseudo-gradient are stored."""

    kind: Literal[ReportKind.DELTA] = ReportKind.DELTA
    epoch: Small
    parts: tuple[StoredObject, ...] = Field(max_length=MAX_PARTS, fail_fast=True)


class Merged(Frozen):
    """A drawn merger has stored its copy of a merged part. It counts with the MERGE receipt that fits it."""

    kind: Literal[ReportKind.MERGED] = ReportKind.MERGED
    epoch: Small
    stage: Small
    part: Small
    stored: StoredObject
    left_out: dict[Hotkey, LeftOut] = Field(default_factory=dict, max_length=MAX_REPLICAS)


class BaseStored(Frozen):
    """The base of `epoch` of this replica's stage is stored."""

    kind: Literal[ReportKind.BASE] = ReportKind.BASE
    epoch: Small
    digest: Hex32
    parts: tuple[StoredObject, ...] = Field(max_length=MAX_PARTS, fail_fast=True)


class BadValue(Frozen):
    """NaN or Inf in a loss, a gradient or an incoming tensor of this microbatch.

    The orchestrator reads the incoming frames; where they are finite, validators repeat the op.
    """

    kind: Literal[ReportKind.BAD_VALUE] = ReportKind.BAD_VALUE
    epoch: Small
    step: Small
    microbatch: Small
    signature: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")] = ""
    """The miner's, over `iota.protocol.words.signed_word`: the word may stand in the epoch's record."""


class FrameMissing(Frozen):
    """An announced frame cannot be fetched, or does not match its notice. The orchestrator reads it too."""

    kind: Literal[ReportKind.FRAME_MISSING] = ReportKind.FRAME_MISSING
    name: FrameName
    reason: Annotated[str, Field(max_length=MAX_REASON)]


class EvidenceStored(Frozen):
    """What a validator asked this miner for is stored."""

    kind: Literal[ReportKind.EVIDENCE_STORED] = ReportKind.EVIDENCE_STORED
    epoch: Small
    item: EvidenceItem
    version: Small
    stored: StoredObject


class Reveal(Frozen):
    """A validator reveals the next link of its committed hash chain, for the sealed `epoch`."""

    kind: Literal[ReportKind.REVEAL] = ReportKind.REVEAL
    epoch: Small
    link: Hex32


class EvidenceWanted(Frozen):
    """A validator needs a state of `miner`, or the frames of one of its steps."""

    kind: Literal[ReportKind.EVIDENCE_WANTED] = ReportKind.EVIDENCE_WANTED
    epoch: Small
    miner: Hotkey
    item: EvidenceItem
    version: Small


class AuditKind(StrEnum):
    """What an audit re-executes."""

    OP = "op"
    SEGMENT = "segment"
    """All ops and STEPs of a miner between two of its commitments, and its pseudo-gradient after the last."""
    MERGE = "merge"
    """One part of a merge."""
    BASE = "base"
    """The outer step that made a stage's next base."""
    DELTA = "delta"
    """A part of a merge that leaves a pseudo-gradient out, to judge who gave it."""
    WORD = "word"
    """An op of which the miner says that it gives NaN or Inf."""
    RECORDS = "records"
    """Nothing is re-executed: the signed records are compared with each other."""


class Outcome(StrEnum):
    """The result of an audit."""

    PASS = "pass"
    FAIL = "fail"
    UNDELIVERED = "undelivered"
    """The miner owed evidence and did not deliver it in time, for whatever reason."""
    REVOKED = "revoked"
    """The miner owed evidence, and its owner has revoked its key, so that nobody can deliver it any more."""
    UNSHOWN = "unshown"
    """Evidence that the miner owes to nobody is gone, or is none: a base, a frame of a neighbour."""
    INCONCLUSIVE = "inconclusive"
    """It could not be decided, and no miner is known to be at fault."""


CHARGING: Final = (Outcome.FAIL, Outcome.UNDELIVERED, Outcome.REVOKED)
"""Outcomes that are held against the miner."""


class Verdict(Frozen):
    """A validator's signed result of one audit, with the values that were compared.

    The task is named by (`miner`, `audit`, `seq`), so that anyone can repeat it.
    """

    kind: Literal[ReportKind.VERDICT] = ReportKind.VERDICT
    epoch: Small
    miner: Hotkey
    audit: AuditKind
    outcome: Outcome
    seq: Count
    """Seq of the audited receipt: for a segment that of the COMMIT at its end.
    Of a WORD its number among the miner's, of a DELTA the number of the part, of a BASE that of the stage."""
    failed_seq: Count | None = None
    """Seq of the miner's first receipt that failed."""
    profile: Annotated[str, Field(max_length=200)]
    """Tolerance profile that the comparison used."""
    expected: Annotated[str, Field(max_length=1000)] = ""
    found: Annotated[str, Field(max_length=1000)] = ""
    reason: Annotated[str, Field(max_length=500)] = ""
    signature: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")] = ""

    @property
    def accuses(self) -> bool:
        """Whether the other validators are told of it and examine it: a charge, or a hidden segment."""
        hidden = self.audit is AuditKind.SEGMENT and self.outcome is Outcome.UNSHOWN
        return hidden or self.outcome in CHARGING


class AuditsDone(Frozen):
    """This validator has filed every verdict that its draw for `epoch` demands."""

    kind: Literal[ReportKind.AUDITS_DONE] = ReportKind.AUDITS_DONE
    epoch: Small
    accusations: Count = 0
    """Accusations of the epoch that it was told of and has examined or passed over."""


class WeightsSet(Frozen):
    """A validator's weights as it set them on the chain. Informational only."""

    kind: Literal[ReportKind.WEIGHTS] = ReportKind.WEIGHTS
    block: Count
    weights: dict[Hotkey, Fraction] = Field(max_length=MAX_WEIGHTS)
    compute_share: Annotated[float, Field(ge=0)]
    """Share of the machine's compute that the validator used."""


Report = Annotated[
    Ready
    | Delta
    | Merged
    | BaseStored
    | BadValue
    | FrameMissing
    | EvidenceStored
    | Reveal
    | EvidenceWanted
    | Verdict
    | AuditsDone
    | WeightsSet,
    Field(discriminator="kind"),
]


class NodeStatus(Frozen):
    """Status of a node, sent with an exchange. Informational only."""

    state: Annotated[str, Field(max_length=200)] = ""
    tokens_per_second: Annotated[float, Field(ge=0)] = 0.0
    seconds: dict[Annotated[str, Field(max_length=32)], Seconds] = Field(default_factory=dict, max_length=32)
    """Cumulative seconds by activity: compute, wait, serialise, transfer, replay."""
    memory: Count = 0


class ExchangeRequest(Frozen):
    """POST /v1/exchange: new receipts, frames and reports of a node. It may be repeated.

    Repeated parts are recognised: receipts by their seq, frames and reports by their digest.
    """

    cursor: Count
    """Number of the last event that the node has received."""
    session: Count = 0
    """That of the process's join; 0 says none. Refused once another process has joined with the key."""
    wait_s: Annotated[float, Field(ge=0, le=30)] = 5.0
    """How long the server may wait for events before it answers."""
    receipts: ReceiptBatch | None = None
    frames: tuple[FrameNotice, ...] = Field((), max_length=MAX_FRAMES, fail_fast=True)
    reports: tuple[Report, ...] = Field((), max_length=MAX_REPORTS, fail_fast=True)
    status: NodeStatus | None = None


class LeaveRequest(Frozen):
    """POST /v1/leave: the node leaves for good."""

    reason: Annotated[str, Field(max_length=200)] = ""


Url = Annotated[str, Field(max_length=4096)]


class Method(StrEnum):
    """HTTP method that a presigned URL permits."""

    PUT = "PUT"
    GET = "GET"


class ObjectRequest(Frozen):
    """POST /v1/objects: asks for a presigned URL for one key, or for those of its parts."""

    method: Method
    key: Key
    size: Count = 0
    """Exact size in bytes; PUT only."""
    upload: Annotated[str, Field(max_length=1024)] = ""
    """PUT only: the upload whose parts have all been stored, so that the object is to be made of them."""


class ObjectParts(Frozen):
    """Leave to store a large object in parts: URL n is for part n, of `part_bytes`, the last of the rest."""

    upload: Annotated[str, Field(min_length=1, max_length=1024)]
    part_bytes: Positive
    urls: Annotated[tuple[Url, ...], Field(min_length=1, max_length=256)]


class ObjectReply(Frozen):
    """A presigned URL, and the time at which it expires (Unix seconds)."""

    url: Url
    """Empty where there are `parts`, and where an upload was to be completed."""
    expires: float
    parts: ObjectParts | None = None
    existed: bool = False
    """The key had an object when its upload was to be completed: the caller compares the bytes."""
