"""Jobs of the validator's core: requests that take time, and end with an answer or an error."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from iota.protocol.events import EpochClose, MergeAssign
from iota.protocol.fingerprints import Fingerprint
from iota.protocol.frames import FrameNotice, StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.receipts import Receipt
from iota.protocol.records import BaseRecord, Word
from iota.wire.frame import FrameHeader
from validator.core.op_times import Rates
from validator.core.sealed import SealedEpoch

_T = TypeVar("_T")


@dataclass(frozen=True)
class OwnStart:
    """What makes a replica's own start of a base (`iota.outer.own_start`)."""

    miner: str
    commit: Receipt
    """Its first COMMIT, which commits to it."""
    parts: tuple[StoredObject, ...]
    """What the miner contributed to the merge of the epoch before, which the base's outer step takes."""


@dataclass(frozen=True)
class Base:
    """The base that a stage's replicas began an epoch with, or one of them with its own start from it."""

    epoch: int
    """Its number."""
    stage: int
    record: BaseRecord | None
    """None if the epoch's record holds none."""
    own: OwnStart | None = None


@dataclass(frozen=True)
class Snapshot:
    """A state that a miner delivered. `seq` is the receipt under audit, for a fault."""

    miner: str
    stage: int
    version: int
    seq: int
    stored: StoredObject


@dataclass(frozen=True)
class Frames:
    """The frames of one step that a miner delivered."""

    miner: str
    stage: int
    step: int
    stored: StoredObject


@dataclass(frozen=True)
class Feedback:
    """The error feedback that a miner delivered, with which it began the epoch."""

    miner: str
    stage: int
    commit: Receipt
    """Its first COMMIT, which commits to it."""
    stored: StoredObject


@dataclass(frozen=True)
class OpInputs:
    """The inputs of one microbatch's op; frames as their payloads."""

    tokens: npt.NDArray[np.integer]
    """(sequences, sequence_length + 1) token ids."""
    stage_input: bytes | None = None
    """None at stage 0."""
    gradient: bytes | None = None
    """BACKWARD only."""


# ---- jobs of an epoch ----------------------------------------------------------------------------


@dataclass(frozen=True)
class AwaitBlock:
    """Wait until a block is final. Answer: its hash in hex."""

    block: int


@dataclass(frozen=True)
class Settle:
    """Wait, within bounds, until the orchestrator has stored every report so far. No answer."""


@dataclass(frozen=True)
class FetchRecord:
    """Fetch an epoch's record, plans and receipts, and check them against the seal. Answer: SealedEpoch.

    Fails with RecordBroken or RecordGone.
    """

    seal: EpochClose

    @property
    def epoch(self) -> int:
        """The sealed epoch."""
        return self.seal.epoch


@dataclass(frozen=True)
class FindFlags:
    """Find the flags of an epoch; with millions of receipts that takes seconds. Answer: `flags.Flags`."""

    sealed: SealedEpoch
    past: Mapping[int, Rates]
    """Rates of earlier epochs."""


@dataclass(frozen=True)
class FetchPast:
    """As FetchRecord, of an epoch whose audits are closed. Answer: (its seal, SealedEpoch).

    Fails with TransportFailed or EvidenceMissing.
    """

    epoch: int


@dataclass(frozen=True)
class FetchVerdicts:
    """Fetch the verdicts that others filed of an epoch. Answer: `pool.Pool`. Fails with TransportFailed."""

    epoch: int


# ---- jobs of an audit: any may fail with EvidenceMissing, or the miner's fault -----------------------


@dataclass(frozen=True)
class FetchBase:
    """Fetch a base, or an own start from it, and check it. No answer. Fails with MinerFault as `LoadBase`."""

    base: Base


@dataclass(frozen=True)
class FetchFrame:
    """Answer: the payload of the frame with this header, from the store or from what the miner delivered.

    Fails with Undelivered if the miner delivered other frames.
    """

    header: FrameHeader
    kept: Frames | None = None
    """Where the store has it not: what the miner delivered of its step."""


@dataclass(frozen=True)
class FetchAnnounced:
    """Answer: the payload of the frame that was announced so. Else as `FetchFrame`."""

    notice: FrameNotice
    kept: Frames | None = None


@dataclass(frozen=True)
class FetchTokens:
    """Answer: the token ids of a receipt's or word's microbatch, shaped as in `OpInputs`."""

    receipt: Receipt | Word


@dataclass(frozen=True)
class Shown:
    """The device of a miner's life: the class that its receipts name, and what shows it."""

    device: str
    fingerprint: Fingerprint | None = None
    """Of the life's first COMMIT; None where the record has none."""
    nonce: str = ""
    """What the fingerprint must answer."""


@dataclass(frozen=True)
class LoadBase:
    """Start a replay from a base as weight version `version`. Answer: the Profile of its comparisons.

    Fails with MinerFault if an own start is not what its miner committed to.
    """

    base: Base
    version: int
    shown: Shown
    carried: Carried | None = None
    """Moments to begin with; None for zero ones."""


@dataclass(frozen=True)
class Carried:
    """Moments that a miner carried over from the epoch before."""

    snapshot: Snapshot
    """The state that it began the epoch with. It must be the one that `commit` commits to."""
    commit: Receipt


@dataclass(frozen=True)
class LoadSnapshot:
    """Start a replay from a snapshot. Answer: the Profile of its comparisons.

    Fails with MinerFault if the snapshot is not the state that `commit` commits to.
    """

    snapshot: Snapshot
    commit: Receipt
    """The COMMIT to the snapshot's version."""
    shown: Shown
    whole: bool
    """Whether the audit runs STEPs, and so needs more than the weights."""


@dataclass(frozen=True)
class ReplayOp:
    """Run and compare one op. Answer: ReplayMismatch or None."""

    receipt: Receipt
    forward: Receipt | None
    """The FORWARD of a BACKWARD, to run and compare before it."""
    version: int
    inputs: OpInputs
    sent: bytes | None = None
    """The payload that the op sent; None where it sends none, or digests are compared."""
    forward_sent: bytes | None = None


@dataclass(frozen=True)
class ReplayWord:
    """Run the ops of which a miner says that they give NaN or Inf. Answer: whether they are finite."""

    word: Word
    version: int
    inputs: OpInputs


@dataclass(frozen=True)
class FetchSent:
    """Answer: the payload that the op of a receipt sent; None if it sends none. Else as `FetchFrame`."""

    miner: str
    receipt: Receipt
    kept: Frames | None = None


@dataclass(frozen=True)
class ReplayStep:
    """Run and compare STEP over the summed gradient. Answer: ReplayMismatch or None."""

    receipt: Receipt
    count: int
    """Microbatches in the sum."""
    learning_rate: float


@dataclass(frozen=True)
class CompareRoots:
    """Compare the state after the replay with a COMMIT, to the bit. Answer: ReplayMismatch or None."""

    commit: Receipt


@dataclass(frozen=True)
class CompareState:
    """Compare the state after the replay with the one that the miner delivered, by the profile.

    Answer: ReplayMismatch or None. Fails with MinerFault if the snapshot is not what `commit` commits to.
    """

    snapshot: Snapshot
    commit: Receipt


@dataclass(frozen=True)
class HashDelta:
    """Encode the pseudo-gradient from a base or own start to a version's weights. Answer: Encoded.

    Without a snapshot these are the newest weights of the replay. Fails with MinerFault if the snapshot's
    weights, or the feedback, are not those that the miner committed to.
    """

    miner: str
    base: Base
    commit: Receipt
    snapshot: Snapshot | None
    feedback: Feedback | None = None
    """None where the miner began with none."""


@dataclass(frozen=True)
class Encoded:
    """What a pseudo-gradient gives."""

    parts: tuple[str, ...]
    """Digests in hex of its parts."""
    left: str
    """Root of the error feedback that is left."""


@dataclass(frozen=True)
class ReplayMerge:
    """Merge one part from its contributions. Answer: Remade.

    Fails with EvidenceMissing if the store lacks one that is not in `absent`.
    """

    assign: MergeAssign
    absent: frozenset[str]
    """Hotkeys whose contributions the record calls missing from the store."""


@dataclass(frozen=True)
class Remade:
    """What a merge gives."""

    digest: str
    left_out: dict[str, LeftOut]


@dataclass(frozen=True)
class RemakeBase:
    """Make the base after `base` from it and the merge of its epoch. Answer: its digest of (W, m) in hex."""

    base: Base
    merged: tuple[StoredObject, ...]
    """The merged parts; none where the stage lost all its work and keeps its base."""


AuditJob = (
    FetchBase | FetchFrame | FetchAnnounced | FetchTokens | LoadBase | LoadSnapshot | ReplayOp
    | ReplayWord | FetchSent | ReplayStep | CompareRoots | CompareState | HashDelta | ReplayMerge | RemakeBase
)  # fmt: skip
Job = (
    AwaitBlock | Settle | FetchRecord | FindFlags | FetchPast | FetchVerdicts
    | AuditJob
)  # fmt: skip


@dataclass(frozen=True)
class Wait:
    """Resume when it is decided whether some evidence was delivered. No answer."""


Script = Generator[Job | Wait, Any, _T]
"""A sequential part of the core, as a generator: it yields a job, and is sent the answer or thrown the
error."""
