"""One epoch's training at one replica: routes, pending inputs, and the receivers of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iota.protocol.events import Drop, Event, FrameReady, Plan, Reroute, StepClose
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import BadValue
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from miner.core.effects import (
    Effect,
    FetchFrame,
    ForgetMicrobatch,
    ReadTokens,
    RunOp,
    Say,
    SendFrame,
    WriteCommit,
)
from miner.core.facts import Committed, FrameArrived, OpBad, OpDone, OpLaunched, TokensRead
from miner.core.schedule import Op, Schedule

Place = tuple[int, int]
"""(step, microbatch)"""
MAX_UNRECORDED: Final = 2
"""Ops on the device or after it: one runs while the one before is hashed, signed and written."""


class EpochTraining:
    """Decides from the replica's admission to the epoch until its last STEP."""

    def __init__(
        self, spec: RunSpec, stage: int, hotkey: str, epoch: int, *, joined: int, reads_tokens: bool
    ) -> None:
        """`joined` is the first step of this replica; its weight version `joined` is the base."""
        self.schedule = Schedule(spec, stage, hotkey, epoch, joined=joined)
        self.launching: RunOp | None = None
        """The op that is not on the device yet."""
        self._unrecorded: dict[Op, RunOp] = {}
        """Ops that the device has or had, whose results are not on disk yet."""
        self._reads_tokens = reads_tokens
        self._neighbours: dict[Place, dict[int, str]] = {}
        """Stage -> the replica there, for the stages beside this one, of the microbatches that it has."""
        self._tokens: dict[Place, bool] = {}
        """Microbatches whose tokens were asked for; True once they are read."""
        self._committed = -1
        """The newest version whose COMMIT receipt is written."""

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
            case StepClose():
                self.schedule.close(event)
            case FrameReady() if event.notice.name.epoch == self.epoch:
                return [FetchFrame(event.notice, event.sender)]
            case _:
                pass
        return []

    def tokens_read(self, fact: TokensRead) -> None:
        """A microbatch's tokens are ready; ignored if its step was applied meanwhile."""
        if (fact.step, fact.microbatch) in self._tokens:
            self._tokens[fact.step, fact.microbatch] = True

    def frame_arrived(self, fact: FrameArrived) -> None:
        """A checked frame is ready as the input of its op."""
        self.schedule.frame(fact.name.step, fact.name.microbatch, fact.name.direction)

    @property
    def working(self) -> bool:
        """Whether an op is launched, runs or is recorded."""
        return self.launching is not None or bool(self._unrecorded)

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
            for known in (self._tokens, self._neighbours):
                for place in [place for place in known if place[0] <= op.step]:
                    del known[place]
            return [Say(receipts=True), *self.commit(self.schedule.version)]
        if fact.frame is None or running.receiver is None or closed:
            return [Say(receipts=True)]
        return [SendFrame(fact.frame, running.receiver)]

    def commit(self, version: int) -> list[Effect]:
        """What commits to a version that was loaded or made just now; empty if none is due."""
        due = self.schedule.spec.is_committed(version, self.schedule.joined)
        return [WriteCommit(self.epoch, version)] if due else []

    def committed(self, fact: Committed) -> None:
        """A version's COMMIT receipt is written."""
        self._committed = max(self._committed, fact.version)

    def op_bad(self, fact: OpBad) -> list[Effect]:
        """An op gave NaN or Inf: drop the microbatch here and report it."""
        if self._unrecorded.pop(fact.op, None) is None:
            return []
        place = {"epoch": self.epoch, "step": fact.op.step, "microbatch": fact.op.microbatch}
        self.schedule.undo(fact.op)
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
        self.launching = RunOp(op, self._receiver(op))
        return [self.launching]

    def wants_fetched(self, name: FrameName) -> bool:
        """Whether this replica still needs an incoming frame: until it has applied the frame's step.

        The step may be closed: a restarted replica runs closed steps again.
        """
        return name.step >= self.schedule.version

    def wants_sent(self, name: FrameName) -> bool:
        """Whether a frame made here is still needed: step open, microbatch still assigned here."""
        if self.schedule.is_closed(name.step):
            return False
        mine = (name.step, name.microbatch) in self._neighbours
        return mine and self.schedule.attempt(name.step, name.microbatch) == name.attempt

    def _plan(self, event: Plan) -> list[Effect]:
        share = event.share
        mine = self.schedule.plan(share)
        for planned in share.microbatches if mine else ():
            self._meet((share.step, planned.microbatch), planned.before, planned.after)
        return self._read(share.step, mine)

    def _reroute(self, event: Reroute) -> list[Effect]:
        place = (event.step, event.microbatch)
        before = self.schedule.attempt(*place)
        if self.schedule.reroute(event):
            self._meet(place, event.before, event.after)
            return self._read(event.step, [event.microbatch])
        if event.stage != self.schedule.stage and place in self._neighbours:
            self._neighbours[place][event.stage] = event.miner
        if event.stage == self.schedule.stage:
            self._neighbours.pop(place, None)
            return [ForgetMicrobatch(self.epoch, event.step, event.microbatch, before)]
        return []

    def _meet(self, place: Place, before: str | None, after: str | None) -> None:
        """Note the replicas beside this one on a microbatch's route."""
        stage = self.schedule.stage
        beside = {stage - 1: before, stage + 1: after}
        self._neighbours[place] = {at: hotkey for at, hotkey in beside.items() if hotkey is not None}

    def _drop(self, event: Drop) -> list[Effect]:
        self._neighbours.pop((event.step, event.microbatch), None)
        if not self.schedule.drop(event):
            return []
        attempt = self.schedule.attempt(event.step, event.microbatch)
        return [ForgetMicrobatch(self.epoch, event.step, event.microbatch, attempt)]

    def _read(self, step: int, indices: Sequence[int]) -> list[Effect]:
        """Ask for the tokens of these microbatches that were not asked for yet."""
        new = [i for i in indices if self._reads_tokens and (step, i) not in self._tokens]
        self._tokens |= {(step, index): False for index in new}
        return [ReadTokens(self.epoch, step, index) for index in new]

    def _receiver(self, op: Op) -> str | None:
        if op.kind in (OpKind.STEP, OpKind.EVAL):
            return None
        stages = self.schedule.spec.layout.stages
        towards = Direction.of(op.kind).destination(self.schedule.stage, stages)
        return None if towards is None else self._neighbours.get((op.step, op.microbatch), {}).get(towards)
