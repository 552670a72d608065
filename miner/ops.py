"""Runs one op on the device and writes its frame and receipt to disk. Called in the device thread only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blake3 import blake3

from iota.codec.wire_dtype import payload_tensor
from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.fingerprint import fingerprint
from iota.compute.host_copy import HostCopy
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from iota.compute.state import StageState, zero_moments
from iota.data.reader import Tokens
from iota.identity.keys import Hotkey
from iota.outer.base_values import BaseRoots
from iota.protocol.fingerprints import fingerprint_nonce
from iota.protocol.frames import FrameName, FrameNotice
from iota.protocol.receipts import MAX_LOSS, Beginning, OpKey, OpKind, Receipt, StepUpdate, counted_digest
from iota.spec import RunSpec
from iota.wire.frame import Frame, FrameError, FrameHeader, decode_frame, encode_frame, make_header
from iota.wire.transport import OutgoingFrame
from miner.activity import Activity
from miner.committer import Committer
from miner.core.schedule import Op
from miner.disk import MinerDisk
from miner.receipt_log import ReceiptLog

log = logging.getLogger(__name__)


class StateLost(Exception):
    """This replica's weights cannot be trusted or rebuilt; it must join again from the run's base."""


@dataclass
class Inputs:
    """Inputs of one microbatch's ops, as far as they have arrived."""

    tokens: Tokens | None = None
    """(sequences, sequence_length + 1) token ids. Set before any op of the microbatch runs."""
    stage_input: Frame | None = None
    """Activations from the stage before; None at stage 0."""
    gradient: Frame | None = None
    """Gradient of this stage's output; None at the last stage."""


@dataclass
class OpRunner:
    """One replica's engine with its receipts, frames and snapshots on disk. `close` ends it."""

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
    _joined: int = 0
    """First version of this replica in its epoch."""

    def __post_init__(self) -> None:
        room = self.snapshot_bytes
        self.committer = Committer(self.spec, self.stage, self.disk, room, self._now)

    def close(self) -> None:
        """End the committer; what it has not finished is repeated after a restart."""
        self.committer.close()

    def load(self, epoch: int, version: int, state: StageState, base: BaseRoots) -> None:
        """Start an epoch from `state` on the CPU as `version`, and commit to it. It must not change later.

        `base` are the roots of the base whose weights `state` has.
        """
        self.engine.load(state, version=version)
        self._joined = version
        start = replace(state, moments=state.moments or zero_moments(self.spec, self.stage))
        self._commit(epoch, version, lambda: HostCopy(start), self._beginning(epoch, base))

    def _beginning(self, epoch: int, base: BaseRoots) -> Beginning:
        """What the life shows of its base and its device. The suite runs as the ops do."""
        nonce = fingerprint_nonce(self.spec.id, epoch, base.digest, self.hotkey.ss58)
        return Beginning(
            rest=base.rest,
            fingerprint=fingerprint(self.spec, self.stage, self.engine.device, nonce),
        )

    def run(
        self, op: Op, inputs: Mapping[tuple[int, int], Inputs], receiver: str | None
    ) -> OutgoingFrame | None:
        """Run `op` and return the frame to send to `receiver`; None if the op sends none.

        Args:
            inputs: by (step, microbatch).

        Raises:
            BadValueError: NaN, Inf or an absurd loss. Nothing was recorded; the microbatch must be dropped.
            StateLost: nothing was recorded.
            OSError: the disk is full; nothing was recorded.
        """
        if op.kind is OpKind.STEP:
            self._step(op, inputs)
            return None
        mb = Microbatch(op.epoch, op.step, op.microbatch, op.attempt)
        work = inputs[op.step, op.microbatch]
        started = self._now()
        clock = time.perf_counter()
        made = self._compute(op.kind, mb, op.version, work, recompute=not op.send_forward)
        output = made.read().result()
        if output.loss is not None and output.loss > MAX_LOSS:
            raise BadValueError(f"a loss of {output.loss:g} nats a token")
        ended = self._now()
        self.activity.compute_s += time.perf_counter() - clock
        if op.kind is OpKind.LOSS and output.loss is not None:
            self.activity.loss_sum += output.loss
            self.activity.losses += 1
        clock = time.perf_counter()
        frame = None
        if output.payload is not None and receiver is not None:
            frame = self._frame(op, output.payload, output.digest, receiver)
        gradient = work.gradient if op.kind is OpKind.BACKWARD else None
        self._record(
            op,
            inputs=tuple(f.signed_header for f in (work.stage_input, gradient) if f is not None),
            output=output.digest,
            loss=output.loss,
            tokens=self.spec.data.tokens,
            started=started,
            ended=ended,
        )
        self.activity.serialise_s += time.perf_counter() - clock
        return frame

    def _now(self) -> float:
        """Unix seconds by the clock as it was at the join, which the orchestrator took as right.

        A clock that is set later could give times that it refuses, and a refused receipt ends the chain.
        """
        return self._wall_s + time.monotonic() - self._steady_s

    def _compute(
        self, kind: OpKind, mb: Microbatch, version: int, work: Inputs, *, recompute: bool
    ) -> DeviceOutput:
        """Start FORWARD, LOSS, EVAL or BACKWARD. `recompute`: a BACKWARD computes its own forward first."""
        tokens, stage_input = work.tokens, None
        if tokens is None:
            raise StateLost("an op was scheduled before its tokens were read")
        if work.stage_input is not None:
            stage_input = payload_tensor(work.stage_input.payload)
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
        return self.engine.backward(mb, version, payload_tensor(work.gradient.payload))

    def _frame(self, op: Op, payload: bytes, digest: str, receiver: str) -> OutgoingFrame:
        """The op's signed frame, written to disk before its receipt.

        A frame that an earlier process wrote for the same payload is sent again: signatures are randomised,
        so a second one would make other bytes than those that may be in the store.
        """
        name = FrameName.of(op.key, self.stage)
        header = make_header(self.spec, name, digest, self.hotkey.ss58, receiver)
        data = self._kept_frame(header)
        if data is None:
            data = encode_frame(header, payload, self.hotkey.sign)
            self.disk.save_frame(name, data)
        notice = FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data))
        return OutgoingFrame(notice, data)

    def _kept_frame(self, header: FrameHeader) -> bytes | None:
        """The frame with this header on disk; None if there is none, another or a damaged one."""
        try:
            data = self.disk.frame(header.name).read_bytes()
            if decode_frame(data, self.spec).header == header:
                return data
        except FileNotFoundError:
            return None
        except FrameError as error:
            log.warning("frame %s on this disk is damaged and is made anew: %s", header.name, error)
        return None

    def _step(self, op: Op, inputs: Mapping[tuple[int, int], Inputs]) -> None:
        summed = [(mb.index, mb.attempt) for mb in self.engine.summed(op.step)]
        if summed != list(op.counted):
            self._sum_again(op, inputs)
        started, clock = self._now(), time.perf_counter()
        try:
            result = self.engine.step(op.step, len(op.counted), op.learning_rate)
        except BadValueError as error:
            raise StateLost(f"the weights went bad in step {op.step}: {error}") from error
        self.activity.compute_s += time.perf_counter() - clock
        clock = time.perf_counter()
        counted = counted_digest(op.counted)
        self._record(
            op,
            output=counted,
            started=started,
            ended=self._now(),
            update=StepUpdate(
                gradient_norm=result.gradient_norm, counted=counted, learning_rate=op.learning_rate
            ),
        )
        if self.spec.is_committed(result.version, self._joined):
            self._commit(op.epoch, result.version, self.engine.copy_state)
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

    def _commit(
        self,
        epoch: int,
        version: int,
        copy: Callable[[], HostCopy],
        beginning: Beginning | None = None,
    ) -> None:
        """Have the committer commit to a version that was just made."""
        # Looked up now: when the commitment is complete, the log may have forgotten the epoch.
        earlier = self.log.find((epoch, version, 0, 0, OpKind.COMMIT))
        self.committer.give(epoch, version, copy, earlier, beginning)

    def record_commits(self) -> None:
        """Write the receipts of the commitments that are complete, in order.

        None of an epoch may stand after those of a later one: it is then left out. Raises StateLost and
        OSError; the receipts before the one concerned are written.
        """
        for done in self.committer.take():
            if done.epoch < self.log.newest_epoch:
                continue
            key = (done.epoch, done.version, 0, 0, OpKind.COMMIT)
            fields = {
                "output": done.made.root,
                "commitment": done.made,
                "started": done.started,
                "ended": done.ended,
            }
            self._write(key, done.version, done.earlier, fields)

    def _record(self, op: Op, **fields: Any) -> None:
        """Append the op's receipt, or compare the result with the receipt of an earlier process."""
        self._write(op.key, op.version, self.log.find(op.key), fields)

    def _write(self, key: OpKey, version: int, earlier: Receipt | None, fields: dict[str, Any]) -> None:
        epoch, step, microbatch, attempt, kind = key
        if earlier is None:
            self.log.append(
                {
                    "epoch": epoch,
                    "step": step,
                    "microbatch": microbatch,
                    "attempt": attempt,
                    "stage": self.stage,
                    "kind": kind,
                    "version": version,
                    "device": self.device,
                    **fields,
                }
            )
        elif not _agrees(earlier, fields):
            raise StateLost(f"{kind} {step}/{microbatch} no longer gives the result that was receipted")


def _agrees(earlier: Receipt, fields: dict[str, Any]) -> bool:
    """Whether a repeated op gave the receipted result."""
    found = (fields["output"], fields.get("update"), fields.get("commitment"))
    return (earlier.output, earlier.update, earlier.commitment) == found
