"""A replica on a slow device: the results of its ops come to the host when a test lets them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from blake3 import blake3

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.output import ReadBack
from iota.compute.state import StageState
from iota.identity.keys import Hotkey
from iota.outer.base_values import BaseRoots
from iota.protocol.events import Drop, StepClose
from iota.protocol.frames import Direction, FrameName
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import OpKey, OpKind, Receipt
from iota.spec import RunSpec
from iota.wire.frame import encode_frame, make_header
from iota.wire.transport import OutgoingFrame
from miner.core.epoch import MAX_UNRECORDED
from miner.core.schedule import Op, Schedule
from miner.disk import MinerDisk
from miner.kept_frames import OpInput
from miner.ops import Inputs, OpRunner
from miner.receipt_file import parse_line
from miner.receipt_log import ReceiptLog
from tests.support.frames import op_input
from tests.support.plans import share_of, whole_plan
from tests.support.small_runs import sample, small_run

T = TypeVar("T")

STAGE = 1
KEYS = [Hotkey.from_seed(bytes([n]) * 32) for n in (1, 2, 3)]
Bad = Mapping[tuple[int, int, OpKind], float]
"""(step, microbatch, kind) -> the value in place of all that this op receives."""


class Gate:
    """Holds every result back until `let`; one `let` is for one result, in the order of ops."""

    def __init__(self) -> None:
        self.let_in = threading.Semaphore(0)

    def let(self, count: int = 1) -> None:
        self.let_in.release(count)


class LateReadBack(ReadBack[T]):
    def __init__(self, inner: ReadBack[T], gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    def result(self) -> T:
        self._gate.let_in.acquire()
        return self._inner.result()


class LateResult:
    """A result of an op whose copy to the host comes late."""

    def __init__(self, made: Any, gate: Gate) -> None:
        self._made, self._gate = made, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)

    def read(self) -> LateReadBack[Any]:
        return LateReadBack(self._made.read(), self._gate)


class LateEngine(Engine):
    """The engine of a slow device."""

    gate: Gate

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("forward", "loss", "backward", "evaluate", "step"):
            return found
        return lambda *given: LateResult(found(*given), self.gate)


def late_spec(pipeline: str = "sync") -> RunSpec:
    """A run of three stages, two steps and three microbatches; both ends of its epoch are committed to."""
    schedule = {"pipeline": pipeline, "steps": 2, "microbatches": 3, "heldout": 0, "credit": 3}
    return small_run(schedule=schedule)


class LateReplica:
    """Stage 1 with all its inputs there from the start; `close` it."""

    def __init__(self, root: Path, spec: RunSpec, bad: Bad | None = None) -> None:
        self.spec, self.gate = spec, Gate()
        self.disk = MinerDisk(root)
        self.log = ReceiptLog(self.disk.receipts, spec.id, KEYS[STAGE])
        engine = LateEngine(spec, STAGE)
        engine.gate = self.gate
        self.runner = OpRunner(
            spec, STAGE, KEYS[STAGE], engine, self.log, self.disk, "cpu", snapshot_bytes=1 << 30
        )
        self.runner.load(0, 0, StageState.initial(spec, STAGE), BaseRoots("ab" * 32, EMPTY))
        indices = range(spec.schedule.microbatches)
        self.inputs = {
            (step, index): Inputs(
                tokens=sample(spec)(0, step, index),
                stage_input=received(spec, step, index, OpKind.FORWARD, bad or {}),
                gradient=received(spec, step, index, OpKind.BACKWARD, bad or {}),
            )
            for step in range(spec.schedule.steps)
            for index in indices
        }

    def launch(self, kind: OpKind, step: int = 0, index: int = 0) -> Future[OutgoingFrame | None]:
        op = Op(kind, 0, step, self.spec.weight_version(step), microbatch=index)
        return self.launch_op(op)

    def launch_op(self, op: Op) -> Future[OutgoingFrame | None]:
        towards = {OpKind.FORWARD: KEYS[2].ss58, OpKind.BACKWARD: KEYS[0].ss58}
        return self.runner.launch(op, self.inputs, towards.get(op.kind))

    def step(self, step: int, *counted: int) -> Future[OutgoingFrame | None]:
        pairs = tuple((index, 0) for index in counted)
        version = self.spec.weight_version(step)
        return self.launch_op(Op(OpKind.STEP, 0, step, version, counted=pairs, learning_rate=0.01))

    @property
    def receipts(self) -> list[Receipt]:
        """Those of ops, from the disk."""
        lines = self.disk.receipts.read_bytes().splitlines()[1:]
        return [r for r in (parse_line(Receipt, line)[0] for line in lines) if r.kind is not OpKind.COMMIT]

    @property
    def results(self) -> dict[OpKey, tuple[Any, ...]]:
        """What the receipts say of the work, without times and numbers."""
        return {r.key: (r.version, r.inputs, r.output, r.loss, r.tokens, r.update) for r in self.receipts}

    def close(self) -> None:
        self.gate.let(1000)
        self.runner.close()
        self.log.close()
        self.disk.__exit__()


def received(spec: RunSpec, step: int, index: int, kind: OpKind, bad: Bad) -> OpInput:
    """The frame that an op receives: values that follow from its name, or bad ones."""
    return _frame(spec, step, index, kind, bad.get((step, index, kind)))


@cache
def _frame(spec: RunSpec, step: int, index: int, kind: OpKind, value: float | None) -> OpInput:
    forward = kind is OpKind.FORWARD
    generator = torch.Generator().manual_seed(100 * step + 10 * index + forward)
    values = torch.randn(payload_shape(spec), generator=generator)
    payload = encode_wire(values if value is None else torch.full_like(values, value), spec.boundary.wire)
    data = payload.numpy().tobytes()
    sender, direction = (0, Direction.FORWARD) if forward else (2, Direction.BACKWARD)
    name = FrameName(epoch=0, step=step, microbatch=index, attempt=0, stage=sender, direction=direction)
    digest = blake3(data).hexdigest()
    header = make_header(spec, name, digest, KEYS[sender].ss58, KEYS[STAGE].ss58)
    return op_input(encode_frame(header, data, KEYS[sender].sign), spec)


class LateRun:
    """All steps of a replica, in the order that its schedule gives to what it knows at the time."""

    def __init__(self, replica: LateReplica) -> None:
        spec = replica.spec
        self.replica, self.launched = replica, list[OpKey]()
        self.schedule = Schedule(spec, STAGE, KEYS[STAGE].ss58, 0)
        self._unread: deque[tuple[Op, Future[OutgoingFrame | None]]] = deque()
        self._open = {step: set(range(spec.schedule.microbatches)) for step in range(spec.schedule.steps)}
        self.bad: list[OpKey] = []

    def train(self, reads_first: Callable[[], bool]) -> None:
        """Run until every step is applied; `reads_first` says whether a result is read before the next op."""
        hotkeys = [key.ss58 for key in KEYS]
        for step in self._open:
            plan = whole_plan(hotkeys, len(self._open[step]), step=step)
            for index in self.schedule.plan(share_of(plan, hotkeys[STAGE]).share):
                for direction in Direction:
                    self.schedule.frame(step, index, direction)
        while not self.schedule.finished:
            op = self.schedule.next_op() if len(self._unread) < MAX_UNRECORDED else None
            if op is None or (self._unread and reads_first()):
                self._read()
            else:
                self.schedule.begin(op)
                self.launched.append(op.key)
                self._unread.append((op, self.replica.launch_op(op)))

    def _read(self) -> None:
        op, recorded = self._unread.popleft()
        self.replica.gate.let()
        place = {"epoch": 0, "step": op.step, "microbatch": op.microbatch}
        try:
            recorded.result(60)
            self.schedule.done(op)
        except BadValueError:
            self.bad.append(op.key)
            self.schedule.undo(op)
            self.schedule.drop(Drop(**place))
            self._end(op, counts=False)
        else:
            if op.kind is OpKind.BACKWARD:
                self._end(op, counts=True)

    def _end(self, op: Op, *, counts: bool) -> None:
        """A microbatch has ended; with the last one its step is closed."""
        self._open[op.step].discard(op.microbatch)
        if not self._open[op.step]:
            entries = self.schedule.steps[op.step].microbatches
            counted = tuple((index, 0) for index, entry in sorted(entries.items()) if entry.backward_done)
            self.schedule.close(StepClose(epoch=0, step=op.step, counted=counted, learning_rate=0.01))
