"""Facts that the shell gives the core: events of the orchestrator, and outcomes of effects."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.events import Event
from iota.protocol.frames import Direction, FrameName, FrameNotice
from iota.protocol.messages import Report
from iota.wire.transport import OutgoingFrame
from miner.core.effects import Duty
from miner.core.schedule import Op


@dataclass(frozen=True)
class Heard:
    """An event of the orchestrator, in order of its number. Given only while the core is listening."""

    event: Event


@dataclass(frozen=True)
class BaseHeld:
    """The base of `epoch` and the epoch's start state are on disk."""

    epoch: int
    digest: str


@dataclass(frozen=True)
class StateLoaded:
    """The engine holds the start state of `epoch` as weight version `step`."""

    epoch: int
    step: int


@dataclass(frozen=True)
class TokensRead:
    """A microbatch's token ids are in memory, ready for its ops."""

    epoch: int
    step: int
    microbatch: int


@dataclass(frozen=True)
class Pushed:
    """How a frame came that did not come from the store: from its sender, now or before a restart."""

    sender: str
    digest: str
    """Of the whole frame, as it lies on this disk."""


@dataclass(frozen=True)
class FrameArrived:
    """A frame is on this disk, and is signed by its sender."""

    name: FrameName
    pushed: Pushed | None = None
    """None: it is as it was announced, and came from the store."""


@dataclass(frozen=True)
class FramesSought:
    """A search on this disk is over."""

    names: tuple[FrameName, ...]


@dataclass(frozen=True)
class FrameLost:
    """An announced frame is unavailable or invalid."""

    name: FrameName
    reason: str


@dataclass(frozen=True)
class OpLaunched:
    """The device has the op as work, and may be given the next one. Its result is not known."""

    op: Op


@dataclass(frozen=True)
class OpDone:
    """The op's frame and receipt are on disk."""

    op: Op
    frame: OutgoingFrame | None
    """None if the op sends none."""


@dataclass(frozen=True)
class Committed:
    """The receipt of the COMMIT of a version is on disk, and the version's snapshot if there was room."""

    epoch: int
    version: int


@dataclass(frozen=True)
class OpBad:
    """The op gave NaN or Inf. It has no result and no receipt. A STEP ends the life instead."""

    op: Op
    bad_inputs: tuple[Direction, ...] = ()
    """Of the frames that it has read, those that hold what no stage sends. Where there are none, each may be
    what made it bad."""


@dataclass(frozen=True)
class FrameStored:
    """A frame lies in the store, or on its receiver's disk, as the notice says."""

    notice: FrameNotice


@dataclass(frozen=True)
class FrameNotStored:
    """A frame is no longer wanted, or can never be sent."""

    name: FrameName


@dataclass(frozen=True)
class ObjectsMissing:
    """Objects that this replica announced are not in the store; one of each notice or report."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class DutyEnded:
    """A duty succeeded or was given up."""

    duty: Duty
    report: Report | None
    """None if it was given up; the orchestrator then asks another replica if it still needs it."""


TrainingFact = (
    TokensRead
    | FrameArrived
    | FramesSought
    | FrameLost
    | OpLaunched
    | OpDone
    | OpBad
    | Committed
    | FrameStored
    | FrameNotStored
)
Fact = Heard | BaseHeld | StateLoaded | TrainingFact | ObjectsMissing | DutyEnded
