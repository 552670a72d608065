"""Runs one op on the device and leaves its frame and receipt on disk. One worker thread calls this."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3
from torch import Tensor

from iota.codec.wire_dtype import payload_tensor
from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch
from iota.compute.state import save_state
from iota.data.reader import Tokens
from iota.identity.keys import Hotkey
from iota.objects import snapshot_bytes
from iota.protocol.messages import Direction, FrameName, FrameNotice
from iota.protocol.receipts import MAX_LOSS, OpKind, Receipt, StepState
from iota.spec import RunSpec
from iota.wire.frame import Frame, encode_frame, make_header
from iota.wire.transport import OutgoingFrame
from miner.activity import Activity
from miner.core.schedule import Op
from miner.disk import MinerDisk
from miner.receipt_log import ReceiptLog

log = logging.getLogger(__name__)


class StateLost(Exception):
    """This replica's weights cannot be trusted or rebuilt; it must start again from its base."""


@dataclass
class Inputs:
    """What an op of one microbatch works on."""

    tokens: Tokens | None = None
    """(sequences, sequence_length + 1) token ids; set before an op of the microbatch runs."""
    stage_input: Frame | None = None
    gradient: Frame | None = None


@dataclass
class OpRunner:
    spec: RunSpec
    stage: int
    hotkey: Hotkey
    engine: Engine
    log: ReceiptLog
    disk: MinerDisk
    device: str
    snapshot_bytes: int
    """Disk that snapshots may take."""
    activity: Activity = field(default_factory=Activity)

    def run(
        self, op: Op, inputs: Mapping[tuple[int, int], Inputs], receiver: str | None
    ) -> OutgoingFrame | None:
        """Run `op`; returns the frame that has to leave for `receiver`, if there is one.

        Raises:
            BadValueError: NaN or Inf; the microbatch must be dropped.
            StateLost, OSError: nothing was recorded; OSError for a full disk.
        """
        if op.kind is OpKind.STEP:
            self._step(op, inputs)
            return None
        mb = Microbatch(op.epoch, op.step, op.microbatch, op.attempt)
        work = inputs[op.step, op.microbatch]
        tokens = _given(work)
        started = time.time()
        clock = time.perf_counter()
        if op.kind is OpKind.FORWARD:
            made = self.engine.forward(mb, op.version, _payload(work.stage_input), tokens)
        elif op.kind is OpKind.LOSS:
            made = self.engine.loss(mb, op.version, _payload(work.stage_input), tokens)
        else:
            if work.gradient is None:
                raise StateLost("a backward was scheduled without its gradient")
            if not op.send_forward:
                self.engine.remember(mb, op.version, _payload(work.stage_input), tokens)
            made = self.engine.backward(mb, op.version, payload_tensor(work.gradient.payload))
        output = made.read().result()
        if output.loss is not None and output.loss > MAX_LOSS:
            raise BadValueError(f"a loss of {output.loss:g} nats a token")
        ended = max(started, time.time())  # the clock may have been set back in between
        self.activity.compute_s += time.perf_counter() - clock
        clock = time.perf_counter()
        frame = None
        if output.payload is not None and receiver is not None:
            frame = self._frame(op, output.payload, output.digest, receiver)
        given = [f.signed_header for f in (work.stage_input, self._gradient(op, work)) if f is not None]
        self._record(
            op,
            inputs=tuple(given),
            output=output.digest,
            sketch=output.sketch,
            loss=output.loss,
            tokens=self.spec.data.tokens,
            started=started,
            ended=ended,
        )
        self.activity.serialise_s += time.perf_counter() - clock
        return frame

    @staticmethod
    def _gradient(op: Op, work: Inputs) -> Frame | None:
        return work.gradient if op.kind is OpKind.BACKWARD else None

    def _frame(self, op: Op, payload: bytes, digest: str, receiver: str) -> OutgoingFrame:
        """The signed frame, on disk before its receipt; after a restart the same bytes as before."""
        name = FrameName(
            epoch=op.epoch,
            step=op.step,
            microbatch=op.microbatch,
            attempt=op.attempt,
            stage=self.stage,
            direction=Direction.of(op.kind),
        )
        path = self.disk.frame(name)
        if self.log.find(op.key) is not None and path.exists():
            data = path.read_bytes()
        else:
            header = make_header(self.spec, name, digest, self.hotkey.ss58, receiver)
            data = encode_frame(header, payload, self.hotkey.sign)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        notice = FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data))
        return OutgoingFrame(notice, data)

    def _step(self, op: Op, inputs: Mapping[tuple[int, int], Inputs]) -> None:
        summed = [(mb.index, mb.attempt) for mb in self.engine.summed(op.step)]
        if summed != list(op.counted):
            self._sum_again(op, inputs)
        started, clock = time.time(), time.perf_counter()
        try:
            result = self.engine.step(op.step, len(op.counted), op.learning_rate, epoch=op.epoch)
        except BadValueError as error:
            raise StateLost(f"the weights went bad in step {op.step}: {error}") from error
        self.activity.compute_s += time.perf_counter() - clock
        clock = time.perf_counter()
        self._record(
            op,
            output=result.weights,
            started=started,
            ended=max(started, time.time()),
            state=StepState(
                weights=result.weights,
                moments=result.moments,
                change_sketch=result.change_sketch,
                moments_sketch=result.moments_sketch,
                gradient_norm=result.gradient_norm,
            ),
        )
        self.keep_snapshot(op.epoch, op.step + 1)
        self.activity.serialise_s += time.perf_counter() - clock

    def _sum_again(self, op: Op, inputs: Mapping[tuple[int, int], Inputs]) -> None:
        """The counted microbatches are not those summed here, in that order: sum them from their inputs."""
        self.engine.clear_gradient(op.step)
        for index, attempt in op.counted:
            work = inputs.get((op.step, index))
            if work is None:
                raise StateLost(f"microbatch {index} of step {op.step} counts, but its inputs are gone")
            mb = Microbatch(op.epoch, op.step, index, attempt)
            tokens = _given(work)
            stage_input = _payload(work.stage_input)
            if self.stage == self.spec.last_stage:
                self.engine.loss(mb, op.version, stage_input, tokens)
            elif work.gradient is None:
                raise StateLost(f"microbatch {index} of step {op.step} counts, but its gradient is gone")
            else:
                self.engine.remember(mb, op.version, stage_input, tokens)
                self.engine.backward(mb, op.version, payload_tensor(work.gradient.payload))

    def _record(self, op: Op, **fields: Any) -> None:
        earlier = self.log.find(op.key)
        if earlier is None:
            self.log.append(
                {
                    "epoch": op.epoch,
                    "step": op.step,
                    "microbatch": op.microbatch,
                    "attempt": op.attempt,
                    "stage": self.stage,
                    "kind": op.kind,
                    "version": op.version,
                    "device": self.device,
                    **fields,
                }
            )
        elif not _agrees(earlier, fields):
            raise StateLost(
                f"{op.kind} {op.step}/{op.microbatch} no longer gives the result that was receipted"
            )

    def keep_snapshot(self, epoch: int, version: int) -> None:
        """Keep (weights, moments) of a version for audits."""
        if self.disk.snapshots_size() + snapshot_bytes(self.spec, self.stage) > self.snapshot_bytes:
            log.error(
                "no room for the snapshot of version %d of epoch %d: audits of it will fail; raise"
                " --snapshot-bytes",
                version,
                epoch,
            )
            return
        save_state(self.engine.state(copy=False), self.disk.snapshot(epoch, version))

    def refuse_small_budget(self) -> None:
        """Raises ValueError where the snapshots of an epoch in training and one in audit do not fit."""
        needed = 2 * (self.spec.schedule.steps + 1) * snapshot_bytes(self.spec, self.stage)
        if needed > self.snapshot_bytes:
            raise ValueError(
                f"the snapshots that audits may ask for need {needed / 2**30:.2f} GiB at this stage:"
                f" give --snapshot-bytes {-(-needed // 2**20)}MiB or more"
            )


def _payload(frame: Frame | None) -> Tensor | None:
    return None if frame is None else payload_tensor(frame.payload)


def _given(work: Inputs) -> Tokens:
    if work.tokens is None:
        raise StateLost("an op was scheduled before its tokens were read")
    return work.tokens


def _agrees(earlier: Receipt, fields: dict[str, Any]) -> bool:
    state: StepState | None = fields.get("state")
    if state is not None:
        before = earlier.state
        return before is not None and (before.weights, before.moments) == (state.weights, state.moments)
    return bool(earlier.output == fields["output"])
