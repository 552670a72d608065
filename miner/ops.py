"""Starts one op after another on the device, and has each recorded when its result is on the host."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from iota.compute.devices import device_of
from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.fingerprint import fingerprint
from iota.compute.host_copy import HostCopy
from iota.compute.names import Microbatch, Output, StepOutput
from iota.compute.output import DeviceOutput, ReadBack
from iota.compute.state import StageState, zero_moments
from iota.data.reader import Tokens
from iota.identity.keys import Hotkey
from iota.outer.base_values import BaseRoots
from iota.protocol.fingerprints import fingerprint_nonce
from iota.protocol.receipts import MAX_LOSS, Beginning, OpKind, SignedHeader, StepUpdate, counted_digest
from iota.spec import RunSpec
from iota.wire.transport import OutgoingFrame
from miner.activity import Activity
from miner.committer import Committed, Committer
from miner.core.schedule import Op
from miner.delta_files import EpochStart
from miner.disk import MinerDisk
from miner.kept_frames import OpInput
from miner.op_records import OpRecords, StateLost
from miner.receipt_log import ReceiptLog
from miner.recorder import Recorder


@dataclass
class Inputs:
    """Inputs of one microbatch's ops, as far as they have arrived."""

    tokens: Tokens | None = None
    """(sequences, sequence_length + 1) token ids. Set before any op of the microbatch runs."""
    stage_input: OpInput | None = None
    """Activations from the stage before; None at stage 0."""
    gradient: OpInput | None = None
    """Gradient of this stage's output; None at the last stage."""


@dataclass
class OpRunner:
    """One replica's engine with its receipts, frames and snapshots on disk. `close` ends it.

    `load` and `launch` are called in the device thread. Its recorder's thread does all that needs no device.
    """

    spec: RunSpec
    stage: int
    hotkey: Hotkey
    engine: Engine
    log: ReceiptLog
    disk: MinerDisk
    device: str
    """Device class that the receipts name."""
    snapshot_bytes: int | None
    """Disk that snapshots may take; None: as much as there is."""
    activity: Activity = field(default_factory=Activity)
    _wall_s: float = field(default_factory=time.time)
    _steady_s: float = field(default_factory=time.monotonic)
    _start: EpochStart = field(default_factory=lambda: EpochStart(-1, {}))
    _joined: int = 0
    """First version of this replica in its epoch."""
    _bad: deque[Microbatch] = field(default_factory=deque)
    """Microbatches whose results were bad, for the engine to discard before the next op."""
    _free_s: float = 0.0
    """When the device had ended the op before, for the recorder. It begins no op earlier."""

    def __post_init__(self) -> None:
        room = self.snapshot_bytes
        self.recorder = Recorder()
        self.committer = Committer(self.spec, self.stage, self.disk, room, self._now)
        self.records = OpRecords(
            self.spec, self.stage, self.hotkey, self.log, self.disk, self.device, self.committer
        )

    def close(self) -> None:
        """End committer and recorder; what they have not finished is repeated after a restart."""
        self.committer.close()
        self.recorder.close()

    def load(
        self,
        epoch: int,
        version: int,
        state: StageState,
        base: BaseRoots,
        feedback: tuple[str, ...] = (),
        *,
        own: bool = False,
    ) -> None:
        """Start an epoch from `state` on the CPU as `version`, and commit to it. It must not change later.

        `base` are the roots of the base whose weights `state` has, `feedback` the leaves of the error
        feedback. `own`: it is an own start.
        """
        self.engine.load(state, version=version)
        self._joined, self._start = version, EpochStart(epoch, state.weights, feedback, own)
        start = replace(state, moments=state.moments or zero_moments(self.spec, self.stage))
        made = self.committer.give(
            self._start, version, lambda: HostCopy(start), self._beginning(epoch, base)
        )
        self.recorder.record(lambda: self._expect(epoch, version, made))

    def _beginning(self, epoch: int, base: BaseRoots) -> Beginning:
        """What the life shows of its base and its device. The suite runs as the ops do."""
        nonce = fingerprint_nonce(self.spec.id, epoch, base.digest, self.hotkey.ss58)
        return Beginning(
            rest=base.rest,
            fingerprint=fingerprint(self.spec, self.stage, self.engine.device, nonce),
        )

    def launch(
        self, op: Op, inputs: Mapping[tuple[int, int], Inputs], receiver: str | None
    ) -> Future[OutgoingFrame | None]:
        """Start `op`. The next one may be launched before the future is done.

        When frame and receipt are on disk, the future gives the frame to send to `receiver`, None if the op
        sends none. Or it raises, and nothing was recorded:
            BadValueError: NaN, Inf or an absurd loss. The microbatch must be dropped.
            StateLost, OSError (the disk is full): no op that was launched later is recorded either.

        Args:
            inputs: by (step, microbatch).

        Raises:
            StateLost: as by the future.
        """
        while self._bad:
            self.engine.discard(self._bad.popleft())
        if op.kind is OpKind.STEP:
            return self._launch_step(op, inputs)
        mb = Microbatch(op.epoch, op.step, op.microbatch, op.attempt)
        work = inputs[op.step, op.microbatch]
        started = self._now()
        made = self._compute(op.kind, mb, op.version, work, recompute=not op.send_forward).read()
        launched = self._now()
        gradient = work.gradient if op.kind is OpKind.BACKWARD else None
        used = tuple(f.signed_header for f in (work.stage_input, gradient) if f is not None)

        def record() -> OutgoingFrame | None:
            try:
                return self._record(op, made, (started, launched), used, receiver)
            except BadValueError:
                self._bad.append(mb)
                raise

        return self.recorder.record(record)

    def _record(
        self,
        op: Op,
        made: ReadBack[Output],
        launch: tuple[float, float],
        used: tuple[SignedHeader, ...],
        receiver: str | None,
    ) -> OutgoingFrame | None:
        """Write frame and receipt of an op on a microbatch; `launch` is when its launch began and ended."""
        output = made.result()
        if output.loss is not None and output.loss > MAX_LOSS:
            raise BadValueError(f"a loss of {output.loss:g} nats a token")
        times = self._times(*launch)
        if op.kind is OpKind.LOSS and output.loss is not None:
            self.activity.loss_sum += output.loss
            self.activity.losses += 1
        clock = time.perf_counter()
        frame = None
        if output.payload is not None and receiver is not None:
            frame = self.records.frame(op, output.payload, output.digest, receiver)
        self.records.receipt(
            op, inputs=used, output=output.digest, loss=output.loss, tokens=self.spec.data.tokens, **times
        )
        self.activity.serialise_s += time.perf_counter() - clock
        return frame

    def _times(self, started: float, launched: float) -> dict[str, float]:
        """`started` and `ended` of the receipt of an op, whose result is on the host now.

        Its launch took from `started` to `launched`; a device that queues nothing has then computed it.
        """
        ended = self._now() if device_of(self.engine.device).queues else launched
        begun, self._free_s = max(started, self._free_s), ended
        self.activity.compute_s += self._free_s - begun
        return {"started": begun, "ended": self._free_s}

    def _now(self) -> float:
        """Unix seconds by the clock as it was at the join, which the orchestrator took as right.

        A clock that is set later could give times that it refuses, and a refused receipt ends the chain.
        """
        return self._wall_s + time.monotonic() - self._steady_s

    def _compute(
        self, kind: OpKind, mb: Microbatch, version: int, work: Inputs, *, recompute: bool
    ) -> DeviceOutput:
        """Start FORWARD, LOSS, EVAL or BACKWARD. `recompute`: a BACKWARD computes its own forward first."""
        tokens = work.tokens
        if tokens is None:
            raise StateLost("an op was scheduled before its tokens were read")
        stage_input = None if work.stage_input is None else work.stage_input.payload_N
        if self.spec.is_heldout(mb.index):
            return self.engine.evaluate(mb, version, stage_input, tokens)
        if kind is OpKind.FORWARD:
            return self.engine.forward(mb, version, stage_input, tokens)
        if kind is OpKind.LOSS:
            return self.engine.loss(mb, version, stage_input, tokens)
        if work.gradient is None:
            raise StateLost(f"the gradient for microbatch {mb.index} of step {mb.step} is gone")
        if recompute:
            self.engine.remember(mb, version, stage_input, tokens)
        return self.engine.backward(mb, version, work.gradient.payload_N)

    def _launch_step(self, op: Op, inputs: Mapping[tuple[int, int], Inputs]) -> Future[OutgoingFrame | None]:
        summed = [(mb.index, mb.attempt) for mb in self.engine.summed(op.step)]
        if summed != list(op.counted):
            self._sum_again(op, inputs)
        started = self._now()
        try:
            result = self.engine.step(op.step, len(op.counted), op.learning_rate)
        except BadValueError as error:
            raise _went_bad(op, error) from error
        made, launched, commitment = result.read(), self._now(), None
        if self.spec.is_committed(result.version, self._joined):
            commitment = self.committer.give(self._start, result.version, self.engine.copy_state)
        return self.recorder.record(lambda: self._record_step(op, made, (started, launched), commitment))

    def _record_step(
        self,
        op: Op,
        made: ReadBack[StepOutput],
        launch: tuple[float, float],
        commitment: Future[Committed] | None,
    ) -> None:
        """Write the receipt of a STEP. The COMMIT of its version may be written after it."""
        try:
            result = made.result()
        except BadValueError as error:
            raise _went_bad(op, error) from error
        times, clock = self._times(*launch), time.perf_counter()
        update = StepUpdate(
            gradient_norm=result.gradient_norm,
            counted=counted_digest(op.counted),
            learning_rate=op.learning_rate,
        )
        self.records.receipt(op, output=update.counted, update=update, **times)
        if commitment is not None:
            self._expect(op.epoch, result.version, commitment)
        self.activity.serialise_s += time.perf_counter() - clock

    def _sum_again(self, op: Op, inputs: Mapping[tuple[int, int], Inputs]) -> None:
        """Recompute the step's gradient, whose microbatches or order differ from the counted ones.

        The order matters, because floating-point addition is not associative.
        """
        self.engine.clear_gradient(op.step)
        kind = OpKind.LOSS if self.stage == self.spec.last_stage else OpKind.BACKWARD
        for index, attempt in op.counted:
            work = inputs.get((op.step, index))
            if work is None:
                raise StateLost(f"microbatch {index} of step {op.step} counts, but its inputs are gone")
            mb = Microbatch(op.epoch, op.step, index, attempt)
            self._compute(kind, mb, op.version, work, recompute=True)

    def _expect(self, epoch: int, version: int, commitment: Future[Committed]) -> None:
        """A COMMIT is due when its commitment is complete, unless an earlier process wrote it."""
        # Looked up now: when the commitment is complete, the log may have forgotten the epoch.
        self.committer.expect(commitment, self.log.find((epoch, version, 0, 0, OpKind.COMMIT)))


def _went_bad(op: Op, error: BadValueError) -> StateLost:
    return StateLost(f"the weights went bad in step {op.step}: {error}")
