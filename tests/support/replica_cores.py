"""The core of a replica, as far as a test needs it."""

from __future__ import annotations

from iota.protocol.events import (
    Admit,
    Event,
    Plan,
    Reroute,
    StepClose,
)
from iota.protocol.receipts import OpKind
from iota.simulate.names import fake_hotkey
from iota.spec import Pipeline, RunSpec
from iota.wire.transport import OutgoingFrame
from miner.core.core import ReplicaCore
from miner.core.effects import (
    Effect,
    LoadState,
    RunOp,
    WriteCommit,
)
from miner.core.facts import (
    BaseHeld,
    FrameArrived,
    Heard,
    OpBad,
    OpDone,
    OpLaunched,
    StateLoaded,
)
from miner.core.schedule import Op
from tests.support.frames import frame_name, outgoing
from tests.support.plans import share_of, whole_plan
from tests.support.virtual_runs import tiny_spec

FIRST, ME, OTHER, LAST = (fake_hotkey(n) for n in range(4))
BASE, NEXT = "ba" * 32, "cd" * 32
SPEC = tiny_spec(stages=3, replicas=1, epochs=2, steps=1, microbatches=3, pipeline=Pipeline.SYNC, credit=3)


def new_core(stage: int = 1, *, reads_tokens: bool = False, spec: RunSpec = SPEC) -> ReplicaCore:
    """A life that has just joined."""
    return ReplicaCore(spec, stage, ME, reads_tokens)


def hear(core: ReplicaCore, *events: Event) -> list[Effect]:
    """The effects of events, in their order."""
    return [effect for event in events for effect in core.take(Heard(event))]


def training(stage: int = 1, *, reads_tokens: bool = False, spec: RunSpec = SPEC) -> ReplicaCore:
    """Admitted to epoch 0 from its start."""
    core = new_core(stage, reads_tokens=reads_tokens, spec=spec)
    core.take(BaseHeld(0, BASE))
    assert hear(core, Admit(epoch=0, step=0, carries=True)) == [LoadState(0, 0, carries=True)]
    assert core.take(StateLoaded(0, 0)) == [WriteCommit(0, 0)]
    return core


def resumed() -> ReplicaCore:
    """The same of a life that goes on from its disk."""
    core = ReplicaCore(SPEC, 1, ME, reads_tokens=False, resumed=True)
    core.take(BaseHeld(0, BASE))
    hear(core, Admit(epoch=0, step=0, carries=True))
    core.take(StateLoaded(0, 0))
    return core


def plan(stage: int = 1) -> Plan:
    """All three microbatches of step 0 go through ME at `stage`."""
    return share_of(whole_plan((FIRST, ME, LAST) if stage else (ME, FIRST, LAST), 3), ME)


def reroute(index: int, miner: str, attempt: int = 1) -> Reroute:
    return Reroute(
        epoch=0, step=0, microbatch=index, stage=1, attempt=attempt, miner=miner, replaces=ME,
        before=FIRST, after=LAST, send_forward=True,
    )  # fmt: skip


def close(*counted: int) -> StepClose:
    chosen = tuple((i, 0) for i in counted)
    return StepClose(epoch=0, step=0, counted=chosen, learning_rate=0.1)


def ops(effects: list[Effect]) -> list[tuple[OpKind, int]]:
    return [(e.op.kind, e.op.microbatch) for e in effects if isinstance(e, RunOp)]


def made(core: ReplicaCore, index: int = 0) -> OutgoingFrame:
    """A frame of a forward of this stage."""
    frame = outgoing(index)
    return OutgoingFrame(
        frame.notice.model_copy(update={"name": frame_name(0, index, stage=core.stage)}), b""
    )


def launched(core: ReplicaCore, effects: list[Effect]) -> tuple[Op, list[Effect]]:
    """The op that begins among `effects`, and the effects of its launch."""
    [op] = [e.op for e in effects if isinstance(e, RunOp)]
    return op, core.take(OpLaunched(op))


def ended(core: ReplicaCore, outcome: OpDone | OpBad) -> list[Effect]:
    """An op is launched, and then has its outcome."""
    return [*core.take(OpLaunched(outcome.op)), *core.take(outcome)]


def forwarded(core: ReplicaCore, index: int = 0) -> list[Effect]:
    """The forward of a microbatch has run."""
    effects = core.take(FrameArrived(frame_name(0, index)))
    op = next(e.op for e in effects if isinstance(e, RunOp))
    return ended(core, OpDone(op, made(core, index)))
