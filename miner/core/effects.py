"""Effects: what the core asks of its shell. Values only; the shell holds tensors, bytes, URLs and clocks."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.events import MergeAssign
from iota.protocol.messages import FrameNotice, Report, StoredObject
from iota.wire.transport import OutgoingFrame
from miner.core.schedule import Op

# ---- the orchestrator -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Tell the orchestrator, at once and in this order."""

    reports: tuple[Report, ...] = ()
    frames: tuple[FrameNotice, ...] = ()
    receipts: bool = False
    """All receipts so far are to go out too."""


# ---- one epoch's work -------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOp:
    """Run an op on the device; answered by OpDone or OpBad. One at a time."""

    op: Op
    receiver: str | None
    """Hotkey that its frame goes to; None where the op makes no frame."""


@dataclass(frozen=True)
class ForgetMicrobatch:
    """Free what a dropped or withdrawn microbatch holds on the device."""

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
    """Bring an announced frame here while it is wanted; answered by FrameArrived or FrameLost."""

    notice: FrameNotice
    sender: str


@dataclass(frozen=True)
class SendFrame:
    """Store a frame at its receiver while it is wanted; answered by FrameStored or FrameNotStored."""

    frame: OutgoingFrame
    to: str


# ---- bases and states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FetchBase:
    """Take the base of `epoch` and keep it on disk; answered by BaseHeld."""

    epoch: int
    digest: str | None
    """None: nobody has reported it yet (epoch 0 only)."""
    parts: tuple[StoredObject, ...]
    """Empty: epoch 0, from the run's seed."""


@dataclass(frozen=True)
class ApplyMerge:
    """Make the next base from the merge of `epoch` and keep it on disk; answered by BaseHeld."""

    epoch: int
    parts: tuple[StoredObject, ...]
    """Empty: the stage lost all its work, and the next base is this one."""
    trained: bool
    """The engine holds a state of this life, whose moments may go on into the next epoch."""


@dataclass(frozen=True)
class LoadState:
    """Load the epoch's start state as the version of `step`; answered by StateLoaded."""

    epoch: int
    step: int


# ---- duties: each answered by DutyEnded -------------------------------------------------------------


@dataclass(frozen=True)
class StoreDelta:
    """Store the pseudo-gradient of `epoch`, taken from the weights as they are now."""

    epoch: int


@dataclass(frozen=True)
class MergePart:
    """Merge one partition of one stage, and store it."""

    assign: MergeAssign


@dataclass(frozen=True)
class StoreBase:
    """Store the base of `epoch` for those who join."""

    epoch: int


@dataclass(frozen=True)
class StoreSnapshot:
    """Store (weights, moments) of a version for an audit."""

    epoch: int
    version: int


# ---- the rest ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForgetEpoch:
    """Delete what was kept on disk for the audits of `epoch`."""

    epoch: int


Duty = StoreDelta | MergePart | StoreBase | StoreSnapshot
Effect = (
    Say
    | RunOp
    | ForgetMicrobatch
    | ReadTokens
    | FetchFrame
    | SendFrame
    | FetchBase
    | ApplyMerge
    | LoadState
    | Duty
    | ForgetEpoch
)
