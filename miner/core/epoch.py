"""One epoch's training at one replica: routes, pending inputs, and the receivers of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iota.protocol.events import Drop, Event, FrameReady, Plan, Reroute, StepClose, StoreFrame
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import BadValue
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from miner.core.effects import (
    Effect,
    ForgetMicrobatch,
    ReadTokens,
    ResendFrame,
    RunOp,
    Say,
    SendAgain,
    SendFrame,
    Sending,
    WriteCommit,
)
from miner.core.facts import (
    Committed,
    FrameArrived,
    FrameLost,
    FramesSought,
    FrameStored,
    OpBad,
    OpDone,
    OpLaunched,
    TokensRead,
)
from miner.core.inputs import InputBook
from miner.core.route import Place
from miner.core.schedule import Op, Schedule

MAX_UNRECORDED: Final = 2
"""Ops on the device or after it: one runs while the one before is hashed, signed and written."""


class EpochTraining:
    """Decides from the replica's admission to the epoch until its last STEP."""

    def __init__(
        self,
        spec: RunSpec,
        stage: int,
        hotkey: str,
        epoch: int,
        *,
        joined: int,
        reads_tokens: bool,
        resumed: bool = False,
    ) -> None:
        """`joined` is the first step of this replica; its weight version `joined` is the base.

        `resumed`: frames of an earlier process may lie on this disk.
        """
        self.schedule = Schedule(spec, stage, hotkey, epoch, joined=joined)
        self.inputs = InputBook(self.schedule, resumed)
        self.launching: RunOp | None = None
        """The op that is not on the device yet."""
        self._unrecorded: dict[Op, RunOp] = {}
        """Ops that the device has or had, whose results are not on disk yet."""
        self._reads_tokens = reads_tokens
        self._tokens: dict[Place, bool] = {}
        """Microbatches whose tokens were asked for; True once they are read."""
        self._committed = -1
        """The newest version whose COMMIT receipt is written."""
        self._commits = -1
        """The newest version whose COMMIT was given out."""

    @property
    def epoch(self) -> int:
        """The number of the epoch in training."""
        return self.schedule.epoch

    @property
    def finished(self) -> bool:
        """Whether every step of the epoch is applied."""
        return self.schedule.finished

    @property
    def settled(self) -> bool:
        """Whether every step is applied and the COMMIT of the last version is receipted."""
        return self.finished and self._committed == self.schedule.version

    def on_event(self, event: Event) -> list[Effect]:
        """Take an event. Events of other epochs have no effect."""
        match event:
            case Plan():
                return self._plan(event)
            case Reroute() if event.epoch == self.epoch:
                return self._reroute(event)
            case Drop() if event.epoch == self.epoch:
                return self._drop(event)
            case StepClose() if event.epoch == self.epoch:
                self.schedule.close(event)
                return self.inputs.lost(event.step)
            case FrameReady() if event.notice.name.epoch == self.epoch:
                return self.inputs.announce(event)
            case StoreFrame(name=name) if self.wants_sent(SendAgain(name)):
                return [SendAgain(name)]
            case _:
                pass
        return []

    def tokens_read(self, fact: TokensRead) -> None:
        """A microbatch's tokens are ready; ignored if its step was applied meanwhile."""
        if (fact.step, fact.microbatch) in self._tokens:
            self._tokens[fact.step, fact.microbatch] = True

    def frame_arrived(self, fact: FrameArrived) -> None:
        """A checked frame is on this disk: ready as the input of its op, if `InputBook.reads` says so."""
        self.inputs.arrived(fact)

    def frames_sought(self, fact: FramesSought) -> list[Effect]:
        """A search on this disk is over."""
        return self.inputs.sought(fact)

    def frame_lost(self, fact: FrameLost) -> list[Effect]:
        """An announced frame cannot be had."""
        return self.inputs.missed(fact)

    def frame_stored(self, fact: FrameStored) -> None:
        """A frame of this replica has been delivered."""
        name = fact.notice.name
        route = self.inputs.routes.get((name.step, name.microbatch))
        stage = name.direction.destination(name.stage, self.schedule.spec.layout.stages)
        if route is not None and stage is not None and fact.notice.kept is None and stage in route.made:
            route.made[stage] = (name, fact.notice)

    @property
    def working(self) -> bool:
        """Whether an op is launched, runs or is recorded."""
        return self.launching is not None or bool(self._unrecorded)

    @property
    def over(self) -> bool:
        """Whether no more receipts of it come if no op is begun."""
        return not self.working and self._committed == self._commits

    def op_launched(self, fact: OpLaunched) -> None:
        """The device has the op that was to be launched; ignored of an epoch's training that was replaced."""
        if self.launching is not None and self.launching.op == fact.op:
            self._unrecorded[fact.op], self.launching = self.launching, None

    def op_done(self, fact: OpDone) -> list[Effect]:
        """An op's result is on disk: send its frame while the step is open, or just its receipt."""
        op, running = fact.op, self._unrecorded.pop(fact.op, None)
        if running is None:  # of a training of this epoch that was replaced
            return [Say(receipts=True)]
        closed = self.schedule.is_closed(op.step)
        self.schedule.done(op)
        if op.kind is OpKind.STEP:
            self.inputs.forget_until(op.step)
            for place in [place for place in self._tokens if place[0] <= op.step]:
                del self._tokens[place]
            return [Say(receipts=True), *self.commit(self.schedule.version)]
        place, stage = (op.step, op.microbatch), self._towards(op)
        route = self.inputs.held(place)
        if fact.frame is None or running.receiver is None or closed or route is None or stage is None:
            return [Say(receipts=True)]
        route.made[stage] = (fact.frame.notice.name, None)
        return [SendFrame(fact.frame, route.beside[stage].hotkey)]

    def commit(self, version: int) -> list[Effect]:
        """What commits to a version that was loaded or made just now; empty if none is due."""
        if not self.schedule.spec.is_committed(version, self.schedule.joined):
            return []
        self._commits = version
        return [WriteCommit(self.epoch, version)]

    def committed(self, fact: Committed) -> None:
        """A version's COMMIT receipt is written."""
        self._committed = max(self._committed, fact.version)

    def op_bad(self, fact: OpBad) -> list[Effect]:
        """An op gave NaN or Inf: have its inputs stored, or drop the microbatch here and report it."""
        if self._unrecorded.pop(fact.op, None) is None:
            return []
        place = {"epoch": self.epoch, "step": fact.op.step, "microbatch": fact.op.microbatch}
        self.schedule.undo(fact.op)
        if stored_first := self.inputs.deny(fact.op, fact.bad_inputs):
            return stored_first
        self.schedule.drop(Drop(**place))
        return [Say(reports=(BadValue(**place),))]

    def go_on(self) -> list[Effect]:
        """Start the next op, or read the tokens that it lacks; empty while it must wait or there is none."""
        if self.launching is not None or len(self._unrecorded) >= MAX_UNRECORDED:
            return []
        op = self.schedule.next_op()
        if op is None:
            return []
        needed = [index for index, _ in op.counted] if op.kind is OpKind.STEP else [op.microbatch]
        if missing := self._read(op.step, needed):
            return missing
        if not all(self._tokens.get((op.step, index), not self._reads_tokens) for index in needed):
            return []
        self.schedule.begin(op)
        stage = self._towards(op)
        receiver = None if stage is None else self.inputs.receiver((op.step, op.microbatch), stage)
        self.launching = RunOp(op, receiver)
        return [self.launching]

    def wants_fetched(self, name: FrameName) -> bool:
        """Whether this replica still needs an incoming frame: until it has applied the frame's step.

        The step may be closed: a restarted replica runs closed steps again.
        """
        return name.step >= self.schedule.version

    def wants_sent(self, effect: Sending) -> bool:
        """Whether a frame made here is still needed there: step open, microbatch still assigned here."""
        name = effect.frame.notice.name if isinstance(effect, SendFrame) else effect.name
        place = (name.step, name.microbatch)
        if self.schedule.is_closed(name.step) or self.inputs.held(place) is None:
            return False
        stage = name.direction.destination(name.stage, self.schedule.spec.layout.stages)
        there = None if stage is None else self.inputs.receiver(place, stage)
        goes = isinstance(effect, SendAgain) or effect.to == there
        return goes and self.schedule.attempt(*place) == name.attempt

    def _plan(self, event: Plan) -> list[Effect]:
        share = event.share
        mine = self.schedule.plan(share)
        sought = [
            name
            for planned in (share.microbatches if mine else ())
            for name in self.inputs.plan(share.step, planned)
        ]
        return self._read(share.step, mine) + self.inputs.find(sought)

    def _reroute(self, event: Reroute) -> list[Effect]:
        place = (event.step, event.microbatch)
        before = self.schedule.attempt(*place)
        if self.schedule.reroute(event):
            sought = self.inputs.take_over(event)
            return self._read(event.step, [event.microbatch]) + self.inputs.find(sought)
        if event.stage == self.schedule.stage:
            self.inputs.leave(place)
            return [ForgetMicrobatch(self.epoch, event.step, event.microbatch, before)]
        if (route := self.inputs.held(place)) is None:
            return []
        found = self.inputs.find(self.inputs.move(event))
        if event.stage not in route.made or self.schedule.is_closed(event.step):
            return found
        name, stored = route.made[event.stage]
        # A notice that came when nobody waited for the frame was not taken.
        return [*found, ResendFrame(name, event.miner) if stored is None else Say(frames=(stored,))]

    def _drop(self, event: Drop) -> list[Effect]:
        self.inputs.leave((event.step, event.microbatch))
        if not self.schedule.drop(event):
            return []
        attempt = self.schedule.attempt(event.step, event.microbatch)
        return [ForgetMicrobatch(self.epoch, event.step, event.microbatch, attempt)]

    def _read(self, step: int, indices: Sequence[int]) -> list[Effect]:
        """Ask for the tokens of these microbatches that were not asked for yet."""
        new = [i for i in indices if self._reads_tokens and (step, i) not in self._tokens]
        self._tokens |= {(step, index): False for index in new}
        return [ReadTokens(self.epoch, step, index) for index in new]

    def _towards(self, op: Op) -> int | None:
        """The stage that the op's frame goes to; None if it sends none."""
        if op.kind in (OpKind.STEP, OpKind.EVAL):
            return None
        return Direction.of(op.kind).destination(self.schedule.stage, self.schedule.spec.layout.stages)
