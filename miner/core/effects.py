"""Effects: requests of the core to its shell. They hold values only, no tensors, URLs or clocks."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.events import MergeAssign
from iota.protocol.frames import EvidenceItem, FrameName, FrameNotice, StoredObject
from iota.protocol.messages import Report
from iota.wire.transport import OutgoingFrame
from miner.core.schedule import Op

# ---- the orchestrator -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Tell the orchestrator in the next exchange: reports and frame notices, each in this order."""

    reports: tuple[Report, ...] = ()
    frames: tuple[FrameNotice, ...] = ()
    receipts: bool = False
    """Whether all receipts written so far go out too."""


# ---- one epoch's work -------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOp:
    """Run an op on the device; answered by OpLaunched, then by OpDone or OpBad, each in the order of ops."""

    op: Op
    receiver: str | None
    """Hotkey that its frame goes to; None if the op sends no frame."""


@dataclass(frozen=True)
class ForgetMicrobatch:
    """Free the device memory of a dropped or withdrawn microbatch. No answer."""

    epoch: int
    step: int
    microbatch: int
    attempt: int


@dataclass(frozen=True)
class ReadTokens:
    """Read a microbatch's token ids; answered by TokensRead."""

    epoch: int
    step: int
    microbatch: int


@dataclass(frozen=True)
class FetchFrame:
    """Fetch an announced frame while it is wanted; answered by FrameArrived or FrameLost."""

    notice: FrameNotice
    sender: str


@dataclass(frozen=True)
class FindFrames:
    """Look on this disk for frames; answered by FrameArrived for each that is there, then by FramesSought."""

    frames: tuple[tuple[FrameName, str], ...]
    """Each with the hotkey that must have sent it."""


@dataclass(frozen=True)
class DenyFrame:
    """No op reads this frame any more, and the next one of its name replaces it on the disk. No answer."""

    name: FrameName


@dataclass(frozen=True)
class SendFrame:
    """Send a frame to its receiver while it is wanted; answered by FrameStored or FrameNotStored."""

    frame: OutgoingFrame
    to: str


@dataclass(frozen=True)
class ResendFrame:
    """Send a frame from this replica's disk to a receiver that is new; answered as SendFrame.

    Its header names the receiver that it was made for.
    """

    name: FrameName
    to: str


@dataclass(frozen=True)
class SendAgain:
    """Put a frame from this replica's disk into the object store; answered as SendFrame."""

    name: FrameName


# ---- bases and states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FetchBase:
    """Get the base of `epoch` and keep it on disk; answered by BaseHeld."""

    epoch: int
    digest: str | None
    """None while no replica has reported it (epoch 0 only)."""
    parts: tuple[StoredObject, ...]
    """Empty for epoch 0: that base is made from the run's seed."""


@dataclass(frozen=True)
class ApplyMerge:
    """Make the next base from the merge of `epoch` and keep it on disk; answered by BaseHeld."""

    epoch: int
    parts: tuple[StoredObject, ...]
    """Empty if the stage lost all its work; the next base then equals this one."""
    trained: bool
    """Whether the engine holds a state of this epoch, whose moments may carry over into the next."""


@dataclass(frozen=True)
class LoadState:
    """Load the epoch's start state as weight version `step`; answered by StateLoaded."""

    epoch: int
    step: int
    carries: bool
    """Whether it begins with the moments that it has kept; else with zero ones."""


@dataclass(frozen=True)
class WriteCommit:
    """Write the COMMIT receipt of a version whose state was copied when it was made; answered by Committed.

    Those of one life are written in the order of the effects.
    """

    epoch: int
    version: int


# ---- duties: each answered by DutyEnded -------------------------------------------------------------


@dataclass(frozen=True)
class StoreDelta:
    """Store the pseudo-gradient of `epoch`, which lies on the disk since its last COMMIT."""

    epoch: int


@dataclass(frozen=True)
class MergePart:
    """Merge one partition of one stage, and store it."""

    assign: MergeAssign


@dataclass(frozen=True)
class StoreBase:
    """Store the base of `epoch`, for replicas that join and for audits."""

    epoch: int


@dataclass(frozen=True)
class StoreEvidence:
    """Store a state of this replica, or the frames of a step, for an audit."""

    epoch: int
    item: EvidenceItem
    version: int


# ---- the rest ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoseState:
    """End this life: it cannot repeat what it did before. No answer."""

    reason: str


@dataclass(frozen=True)
class ForgetEpoch:
    """Delete the frames, snapshots and base kept for the audits of `epoch`. No answer."""

    epoch: int


Duty = StoreDelta | MergePart | StoreBase | StoreEvidence
Sending = SendFrame | ResendFrame | SendAgain
FrameEffect = FetchFrame | FindFrames | DenyFrame | Sending
TrainingEffect = RunOp | WriteCommit | ForgetMicrobatch | ReadTokens | FrameEffect
Effect = Say | TrainingEffect | FetchBase | ApplyMerge | LoadState | Duty | ForgetEpoch | LoseState
