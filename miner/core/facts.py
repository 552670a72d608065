"""Facts: what the shell tells the core. Events of the orchestrator, and how effects ended."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.events import Event
from iota.protocol.messages import FrameName, FrameNotice, Report
from iota.wire.transport import OutgoingFrame
from miner.core.effects import Duty
from miner.core.schedule import Op


@dataclass(frozen=True)
class Heard:
    """An event of the orchestrator, in its order. Only while the core is listening."""

    event: Event


@dataclass(frozen=True)
class BaseHeld:
    """The base of `epoch` and the state that the epoch starts from are on disk."""

    epoch: int
    digest: str


@dataclass(frozen=True)
class StateLoaded:
    """The engine holds the start state of `epoch` as the version of `step`."""

    epoch: int
    step: int


@dataclass(frozen=True)
class TokensRead:
    epoch: int
    step: int
    microbatch: int


@dataclass(frozen=True)
class FrameArrived:
    """A frame is here, and is what its announcement and its signature say."""

    name: FrameName


@dataclass(frozen=True)
class FrameLost:
    """An announced frame cannot be had, or is not what it must be."""

    name: FrameName
    reason: str


@dataclass(frozen=True)
class OpDone:
    """The op's frame and receipt are on disk."""

    op: Op
    frame: OutgoingFrame | None


@dataclass(frozen=True)
class OpBad:
    """NaN or Inf: the op has no result and no receipt."""

    op: Op


@dataclass(frozen=True)
class FrameStored:
    notice: FrameNotice


@dataclass(frozen=True)
class FrameNotStored:
    """It is wanted no longer, or can never be stored."""

    name: FrameName


@dataclass(frozen=True)
class DutyEnded:
    duty: Duty
    report: Report | None
    """None: it is wanted no longer, or cannot be done. The orchestrator asks somebody else."""


Fact = (
    Heard
    | BaseHeld
    | StateLoaded
    | TokensRead
    | FrameArrived
    | FrameLost
    | OpDone
    | OpBad
    | FrameStored
    | FrameNotStored
    | DutyEnded
)
