"""Jobs of the validator's core: each takes time, and ends with an answer or with the reason for none."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from iota.protocol.messages import StoredObject
from iota.protocol.receipts import Receipt
from iota.protocol.records import BaseRecord
from iota.wire.frame import FrameHeader

_T = TypeVar("_T")


@dataclass(frozen=True)
class Base:
    """The weights that the replicas of a stage began an epoch with."""

    epoch: int
    stage: int
    record: BaseRecord | None
    """None where the epoch's record holds none."""


@dataclass(frozen=True)
class Snapshot:
    """The state that a miner delivered; `seq` is the receipt under audit."""

    miner: str
    stage: int
    version: int
    seq: int
    stored: StoredObject


@dataclass(frozen=True)
class OpInputs:
    """The inputs of one microbatch's op."""

    tokens: npt.NDArray[np.integer]
    stage_input: bytes | None = None
    gradient: bytes | None = None


# ---- jobs of an epoch ----------------------------------------------------------------------------


@dataclass(frozen=True)
class AwaitBlock:
    """Wait until a block is final. Answer: its hash, hex."""

    block: int


@dataclass(frozen=True)
class Settle:
    """Wait until the orchestrator has stored every report so far, within bounds. No answer."""


@dataclass(frozen=True)
class FetchRecord:
    """Answer: SealedEpoch. Fails with RecordBroken or RecordGone."""

    epoch: int


@dataclass(frozen=True)
class MeasureHeldout:
    """Measure the base of `epoch` once every stage's is stored.

    Answer: mean nats a token; None where the data holds out less than one batch.
    """

    epoch: int


@dataclass(frozen=True)
class AskLive:
    """Answer: whether the orchestrator still hears from a miner."""

    miner: str


# ---- jobs of an audit: any may fail with EvidenceMissing, or the miner's fault -----------------------


@dataclass(frozen=True)
class FetchBase:
    """Fetch a base and hold it against its record. No answer."""

    base: Base


@dataclass(frozen=True)
class HashBase:
    """Answer: digest of a base's weights."""

    base: Base


@dataclass(frozen=True)
class FetchLastStep:
    """Answer: the STEP receipt that ended an epoch for a miner, or None."""

    epoch: int
    miner: str


@dataclass(frozen=True)
class FetchFrame:
    """Answer: the payload of the frame with this header."""

    header: FrameHeader


@dataclass(frozen=True)
class FetchTokens:
    """Answer: the tokens of a receipt's microbatch."""

    receipt: Receipt


@dataclass(frozen=True)
class LoadBase:
    """Start a replay from a base, as weight version `version`. Answer: the Profile of its comparisons."""

    base: Base
    version: int
    device: str
    """The device class that the receipts to be replayed name."""
    carried: Snapshot | None = None
    """Whose moments it takes, where they are those that `last` commits to."""
    last: Receipt | None = None


@dataclass(frozen=True)
class LoadSnapshot:
    """Start a replay from a snapshot, or put it on top. Answer: the Profile of its comparisons.

    Fails with the miner's fault where the snapshot is not the state that `step` commits to.
    """

    snapshot: Snapshot
    step: Receipt
    device: str
    moments: bool
    """Whether the audit needs its moments."""
    on_top: bool = False
    """Keep the gradient that was summed at the version before."""


@dataclass(frozen=True)
class ReplayOp:
    """Run one op, or a counted microbatch's FORWARD and then its BACKWARD. Answer: ReplayMismatch or None."""

    receipt: Receipt
    forward: Receipt | None
    version: int
    inputs: OpInputs


@dataclass(frozen=True)
class CheckSent:
    """Hold a receipt's sketch against the payload that was sent. Answer: ReplayMismatch or None."""

    miner: str
    receipt: Receipt


@dataclass(frozen=True)
class ReplayStep:
    """STEP over what was summed. Answer: ReplayMismatch or None."""

    receipt: Receipt
    count: int
    """Microbatches in the sum."""
    learning_rate: float


@dataclass(frozen=True)
class HashDelta:
    """Answer: digests of the parts of the pseudo-gradient from a base to the newest weights."""

    base: Base


AuditJob = (
    FetchBase | HashBase | FetchFrame | FetchTokens | LoadBase | LoadSnapshot | ReplayOp | CheckSent
    | ReplayStep | HashDelta
)  # fmt: skip
Job = AwaitBlock | Settle | FetchRecord | MeasureHeldout | AskLive | FetchLastStep | AuditJob


@dataclass(frozen=True)
class Wait:
    """Go on once a snapshot came, or at `until` (seconds). Answer: whether that time has come."""

    until: float


Script = Generator[Job | Wait, Any, _T]
"""Part of the core, written in the order of what happens: it yields a job and is sent the answer, or is
thrown the reason why there is none."""
