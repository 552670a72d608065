"""Cheats in receipts, and in what a miner says of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import BadValue, FrameMissing
from iota.protocol.receipts import OpKind
from miner.core.facts import FrameArrived
from miner.kept_frames import OpInput
from miner.op_records import OpRecords
from miner.ops import OpRunner
from miner.replica import Replica
from tests.support.cheats.compute import noise_forward
from tests.support.cheats.first_lie import lied
from tests.support.miner_program import run_miner

# ---- receipts ----------------------------------------------------------------------------------


def no_forward_receipts() -> None:
    """Sends noise forward, and keeps the receipts of its FORWARDs back."""
    record = OpRecords.receipt

    def without_forwards(self: OpRecords, op: Any, **fields: Any) -> None:
        if op.kind is not OpKind.FORWARD:
            record(self, op, **fields)

    OpRecords.receipt = without_forwards  # type: ignore[method-assign]
    noise_forward()


def no_last_receipt() -> None:
    """Leaves its epoch's last STEP out, with its receipt and the commitment after it."""
    honest = OpRunner._launch_step

    def step(self: OpRunner, op: Any, inputs: Any) -> Any:
        if op.step == self.spec.schedule.steps - 1:
            lied(op.epoch, op.step)
            return self.recorder.record(lambda: None)
        return honest(self, op, inputs)

    OpRunner._launch_step = step  # type: ignore[method-assign]
    run_miner()


def second_receipts() -> None:
    """Claims each op a second time."""
    record = OpRecords.receipt

    def twice(self: OpRecords, op: Any, **fields: Any) -> None:
        fresh = self.log.find(op.key) is None
        record(self, op, **fields)
        if fresh and op.kind is not OpKind.STEP:
            lied(op.epoch, op.step)
            last = self.log.after(self.log.count - 1)
            assert last is not None
            again = last.receipts[-1].model_dump(exclude={"seq", "previous"})
            self.log.append(again)

    OpRecords.receipt = twice  # type: ignore[method-assign]
    run_miner()


# ---- words -------------------------------------------------------------------------------------


def denier() -> None:
    """Says of every frame from its neighbours that it is missing, and works with it all the same.

    Also of those that it has acknowledged.
    """

    def say_missing(self: Replica, name: FrameName) -> None:
        lied(name.epoch, name.step)
        self._talk.send(reports=[FrameMissing(name=name, reason="it is not there")])

    _on_frame(say_missing)


def crier() -> None:
    """Cries NaN on every fourth microbatch, where its activations reach it."""

    def say_bad(self: Replica, name: FrameName) -> None:
        if name.direction is Direction.FORWARD and name.microbatch % 4 == 0:
            lied(name.epoch, name.step)
            word = BadValue(epoch=name.epoch, step=name.step, microbatch=name.microbatch)
            self._talk.send(reports=[self._signed(word)])

    _on_frame(say_bad)


def _on_frame(react: Callable[[Replica, FrameName], None]) -> None:
    honest = Replica._take_frame

    def take_frame(self: Replica, fact: FrameArrived, frame: OpInput) -> None:
        react(self, fact.name)
        honest(self, fact, frame)

    Replica._take_frame = take_frame  # type: ignore[method-assign]
    run_miner()
