"""Frames that are pushed to the replica of `tests.support.replica_cores`, as its core meets them."""

from __future__ import annotations

from iota.protocol.events import FrameReady, Reroute
from iota.protocol.frames import Direction, FrameName
from iota.spec import RunSpec
from iota.wire.frame import FrameHeader, make_header
from miner.core.core import ReplicaCore
from miner.core.effects import Effect, RunOp
from miner.core.facts import FrameArrived, Pushed
from miner.core.schedule import Op
from tests.support.frames import frame_name, outgoing
from tests.support.replica_cores import FIRST, LAST, ME, SPEC, hear, plan, resumed, training


def planned(*, restarted: bool = False) -> ReplicaCore:
    """A core that has heard its first plan."""
    core = resumed() if restarted else training()
    hear(core, plan())
    return core


def op_of(effects: list[Effect]) -> Op:
    """The one op that effects start."""
    [op] = [effect.op for effect in effects if isinstance(effect, RunOp)]
    return op


def digest_of(name: FrameName, content: int = 0) -> str:
    """The digest of a whole frame; `content` tells frames of one name apart."""
    return outgoing(data=f"{name} {content}".encode()).notice.digest


def header_of(name: FrameName, sender: str = FIRST, receiver: str = ME, spec: RunSpec = SPEC) -> FrameHeader:
    """What stands before the payload."""
    return make_header(spec, name, "0" * 64, sender, receiver)


def activations(index: int = 0, attempt: int = 0, step: int = 0) -> FrameName:
    """A frame of the stage before."""
    return frame_name(step, index, attempt=attempt)


def gradient(index: int = 0, attempt: int = 0, step: int = 0) -> FrameName:
    """A frame of the next stage."""
    return frame_name(step, index, attempt=attempt, stage=2, direction=Direction.BACKWARD)


def push(core: ReplicaCore, name: FrameName, sender: str | None = None, content: int = 0) -> list[Effect]:
    """A frame came over a link, and lies on the disk."""
    by = sender or (FIRST if name.direction is Direction.FORWARD else LAST)
    return core.take(FrameArrived(name, Pushed(by, digest_of(name, content))))


def ready(name: FrameName, sender: str | None = None, content: int = 0) -> FrameReady:
    """The orchestrator's word that a frame is in the store."""
    by = sender or (FIRST if name.direction is Direction.FORWARD else LAST)
    notice = outgoing().notice.model_copy(update={"name": name, "digest": digest_of(name, content)})
    return FrameReady(notice=notice, sender=by)


def moved(stage: int, miner: str, attempt: int, index: int = 0, *, send_forward: bool = True) -> Reroute:
    """A microbatch goes to another replica at a stage beside this one, or at this one."""
    return Reroute(
        epoch=0, step=0, microbatch=index, stage=stage, attempt=attempt, miner=miner, replaces=FIRST,
        before=FIRST if stage else None, after=LAST if stage < 2 else None, send_forward=send_forward,
    )  # fmt: skip
