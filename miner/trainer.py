"""Runs the core's training effects: loads states, collects the inputs of ops, and runs ops on the device."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from iota.codec.finite_payload import payload_is_finite
from iota.codec.shapes import payload_shape
from iota.compute.errors import BadValueError, StateError
from iota.compute.names import Microbatch
from iota.data.samples import Samples, needs_tokens
from iota.outer.partition import PartError
from iota.protocol.frames import Direction, FrameName
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from miner.activity import Activity
from miner.core.effects import ForgetMicrobatch, LoadState, ReadTokens, RunOp, WriteCommit
from miner.core.facts import Committed, OpBad, OpDone, OpLaunched, StateLoaded, TokensRead
from miner.core.schedule import Op
from miner.device import DeviceThread
from miner.kept_frames import OpInput
from miner.op_records import StateLost
from miner.ops import Inputs, OpRunner
from miner.retry import persist
from miner.starts import OwnStarts, kept_start

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """One life's training. It lives on the event loop and computes in the device thread."""

    spec: RunSpec
    runner: OpRunner
    samples: Samples
    device: DeviceThread
    activity: Activity
    _epoch: int = -1
    _inputs: dict[tuple[int, int], Inputs] = field(default_factory=dict)
    """(step, microbatch) -> inputs in `_epoch`. Kept until STEP, which may have to recompute its sum."""

    @property
    def reads_tokens(self) -> bool:
        """Whether ops of this stage use token ids: at the ends of the pipeline, and with some codecs."""
        return needs_tokens(self.spec, self.runner.stage)

    async def load(self, effect: LoadState) -> StateLoaded:
        """Load an epoch's start state from disk, and commit to it. What was committed to before is receipted.

        Raises StateLost if the file is damaged, and OSError if the disk is full.
        """
        runner, epoch, step = self.runner, effect.epoch, effect.step
        try:
            if self.spec.overlaps:
                start = await OwnStarts(self.spec, runner, self.device).get(effect, trained=self._epoch)
            else:
                start = await asyncio.to_thread(kept_start, self.spec, runner.stage, runner.disk, effect)
        except (StateError, PartError) as error:
            raise StateLost(f"the start state of epoch {epoch} on this disk is damaged: {error}") from error
        await self._record_commits()
        await self.device.run(
            lambda: runner.load(epoch, step, start.state, start.base, start.feedback, own=start.own)
        )
        log.info("takes part in epoch %d from step %d", epoch, step)
        await runner.recorder.run(lambda: None)  # what was launched before has its result when this has one
        self._epoch, self._inputs = epoch, {}
        return StateLoaded(epoch, step)

    async def read_tokens(self, effect: ReadTokens) -> TokensRead:
        """Read a microbatch's token ids; outlasts shards that are away or damaged. Raises Problem."""
        epoch, step, index = effect.epoch, effect.step, effect.microbatch
        tokens = await persist(
            f"reading the tokens of microbatch {index} of step {step}",
            lambda _: self.samples.microbatch(epoch, step, index),
            few_tries=None,
        )
        if epoch == self._epoch:
            self._inputs_of(step, index).tokens = tokens
        return TokensRead(epoch, step, index)

    def take_frame(self, frame: OpInput) -> None:
        """Take a frame as the input of its op; one of another epoch is dropped."""
        if frame.name.epoch == self._epoch:
            self._set_input(frame.name, frame)

    def deny_frame(self, name: FrameName) -> None:
        """Let go of an input that no op reads any more."""
        if name.epoch == self._epoch:
            self._set_input(name, None)

    def _set_input(self, name: FrameName, frame: OpInput | None) -> None:
        work = self._inputs_of(name.step, name.microbatch)
        if name.direction is Direction.FORWARD:
            work.stage_input = frame
        else:
            work.gradient = frame

    async def run(self, effect: RunOp, take: Callable[[OpLaunched], None]) -> OpDone | OpBad:
        """Launch one op on the device, have the core `take` that, and wait until the op is recorded.

        Raises StateLost, and OSError if the disk is full.
        """
        op = effect.op
        recorded = await self.device.run(self.runner.launch, op, self._inputs, effect.receiver)
        take(OpLaunched(op))
        try:
            frame = await asyncio.wrap_future(recorded)
        except BadValueError as error:
            log.error(
                "%s of microbatch %d of step %d has no result: %s", op.kind, op.microbatch, op.step, error
            )
            return OpBad(op, await asyncio.to_thread(self._bad_inputs, op))
        if op.kind is OpKind.STEP:
            for key in [key for key in self._inputs if key[0] <= op.step]:
                del self._inputs[key]
        elif op.kind in (OpKind.BACKWARD, OpKind.LOSS):
            self.activity.tokens += self.spec.data.tokens
        return OpDone(op, frame)

    def _bad_inputs(self, op: Op) -> tuple[Direction, ...]:
        """Of the frames that an op has read, those that hold NaN, Inf or absurd values. Blocks."""
        read = self._inputs_of(op.step, op.microbatch)
        form = payload_shape(self.spec), self.spec.boundary.wire
        frames = {Direction.FORWARD: read.stage_input}
        if op.kind is OpKind.BACKWARD:
            frames[Direction.BACKWARD] = read.gradient
        return tuple(
            direction
            for direction, frame in frames.items()
            if frame is not None and not payload_is_finite(frame.payload_N.numpy().tobytes(), *form)
        )

    async def commit(self, effect: WriteCommit) -> Committed:
        """Write a COMMIT receipt once the commitment is complete. Raises StateLost, and OSError as `run`."""
        await self._record_commits()
        return Committed(effect.epoch, effect.version)

    async def _record_commits(self) -> None:
        """Wait for the commitments that are due by now, and write their receipts."""
        runner = self.runner
        newest = await runner.recorder.run(lambda: runner.committer.newest)
        if newest is not None:
            await asyncio.wrap_future(newest)
            await runner.recorder.run(runner.records.commits)

    def forget(self, effect: ForgetMicrobatch) -> None:
        """Free the activations that the engine keeps for a microbatch's backward."""
        mb = Microbatch(effect.epoch, effect.step, effect.microbatch, effect.attempt)
        self.device.submit(self.runner.engine.drop, mb)

    def _inputs_of(self, step: int, index: int) -> Inputs:
        blank = None if self.reads_tokens else self.samples.blank_tokens()
        return self._inputs.setdefault((step, index), Inputs(tokens=blank))
