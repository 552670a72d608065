"""Miners that cheat, each in one way, from the table of attacks in docs/threat-model.md.

Each function is a program that a swarm starts in place of `iota-miner start`: it changes the product's own
parts in its process, and runs them. What it changes is what a miner's owner could change.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

import miner.duty_worker
from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute.engine import Engine, Tokens
from iota.compute.names import Microbatch, StepOutput
from iota.compute.output import DeviceOutput
from iota.outer.merge import MergedPart, Read, merge_part
from iota.outer.partition import Vector, part_bytes, read_part
from iota.protocol.events import FrameReady, MergeAssign
from iota.protocol.frames import Direction, StoredObject
from iota.protocol.messages import BadValue, FrameMissing, SnapshotStored
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from iota.wire.store_transport import StoreTransport
from iota.wire.transport import OutgoingFrame
from miner.bases import BaseKeeper
from miner.duty_worker import DutyWorker
from miner.ops import OpRunner
from miner.replica import Replica
from tests.support.miner_program import run_miner

# ---- compute -----------------------------------------------------------------------------------


class FalseEngine(Engine):
    """Computes, and sends what `false` makes of it."""

    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        return self._false(version, super().forward(mb, version, stage_input, tokens))

    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        return self._false(version, super().loss(mb, version, stage_input, tokens))

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        return self._false(version, super().backward(mb, version, gradient))

    def false(self, version: int) -> Tensor | None:
        """What is sent in place of an output of this weight version; None: the output itself."""
        raise NotImplementedError

    def _false(self, version: int, made: DeviceOutput) -> DeviceOutput:
        false = self.false(version)
        if made.payload is None or false is None:
            return made
        return dataclasses.replace(made, hashed_N=encode_wire(false, self.spec.boundary.wire))


class NoiseEngine(FalseEngine):
    def false(self, version: int) -> Tensor | None:
        return torch.randn(payload_shape(self.spec))


class ConstantEngine(FalseEngine):
    """Sends constants whatever it was given."""

    def false(self, version: int) -> Tensor | None:
        return torch.full(payload_shape(self.spec), 0.01)


class LazyEngine(ConstantEngine):
    """Honest with the base alone."""

    def false(self, version: int) -> Tensor | None:
        return None if version == 0 else super().false(version)


def noise() -> None:
    """Sends noise of the right size, signed and on time."""
    run_miner(make_engine=NoiseEngine)


def constants() -> None:
    """Sends constants."""
    run_miner(make_engine=ConstantEngine)


def lazy() -> None:
    """No work after the base, and snapshots that are announced and never stored."""
    _announce_snapshots_only()
    run_miner(make_engine=LazyEngine)


class StillEngine(Engine):
    """Never steps: it nudges one weight, so that each version has another root."""

    def step(self, step: int, count: int, learning_rate: float) -> StepOutput:
        before = self.state()
        made = super().step(step, count, learning_rate)
        weights = self._loaded_versions().weights
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before.weights[name])
            first = weights[sorted(weights)[0]]
            first.view(-1)[0] += 1e-3
        return made


def still() -> None:
    """Never steps, and nudges one weight."""
    run_miner(make_engine=StillEngine)


# ---- evidence ----------------------------------------------------------------------------------


def _announce_snapshots_only() -> None:
    async def store_snapshot(self: DutyWorker, epoch: int, version: int) -> SnapshotStored:
        key = f"{self.spec.id}/audit/{epoch}/{self.hotkey}/{version}"
        stored = StoredObject(key=key, digest="1" * 64, size=1000)
        return SnapshotStored(epoch=epoch, version=version, stored=stored)

    DutyWorker._store_snapshot = store_snapshot  # type: ignore[method-assign]


def unstored_frames() -> None:
    """Announces its frames and stores none: a partner downstream makes its own input up."""

    async def send(self: StoreTransport, frame: OutgoingFrame, to: str) -> None:
        pass

    StoreTransport.send = send  # type: ignore[method-assign]
    run_miner()


# ---- pseudo-gradients --------------------------------------------------------------------------


def _deltas(change: Any) -> None:
    honest = BaseKeeper.pseudo_gradient

    async def pseudo_gradient(self: BaseKeeper) -> Vector:
        found: Vector = change(await honest(self))
        return found

    BaseKeeper.pseudo_gradient = pseudo_gradient  # type: ignore[method-assign]
    run_miner()


def reversed_delta() -> None:
    """A pseudo-gradient times -100."""
    _deltas(lambda delta: delta * -100)


def nan_delta() -> None:
    """A pseudo-gradient of NaN."""
    _deltas(lambda delta: delta * float("nan"))


def huge_delta() -> None:
    """A finite pseudo-gradient of 1e30."""
    _deltas(lambda delta: delta * 0 + 1e30)


def no_delta() -> None:
    """Trains, and never gives its pseudo-gradient."""

    async def store_delta(self: DutyWorker, epoch: int, delta: Vector) -> None:
        return None

    DutyWorker._store_delta = store_delta  # type: ignore[assignment,method-assign]
    run_miner()


# ---- merges ------------------------------------------------------------------------------------


def lying_merger() -> None:
    """Every merged part that it stores is halved; several of these store the same."""

    def halved(spec: RunSpec, assign: MergeAssign, read: Read) -> MergedPart:
        made = merge_part(spec, assign, read)
        return dataclasses.replace(made, data=part_bytes(read_part(made.data, len(made.data) // 4) / 2))

    miner.duty_worker.merge_part = halved
    run_miner()


def excluding_merger() -> None:
    """Every merged part that it stores leaves the last contribution out, as one that cannot be read."""

    def without_last(spec: RunSpec, assign: MergeAssign, read: Read) -> MergedPart:
        last = assign.contributions[-1].hotkey
        return merge_part(spec, assign, lambda given: b"" if given.hotkey == last else read(given))

    miner.duty_worker.merge_part = without_last
    run_miner()


# ---- receipts ----------------------------------------------------------------------------------


class NoisyForwards(NoiseEngine):
    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        return Engine.loss(self, mb, version, stage_input, tokens)

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        return Engine.backward(self, mb, version, gradient)


def no_forward_receipts() -> None:
    """Sends noise forward, and keeps the receipts of its FORWARDs back."""
    record = OpRunner._record

    def without_forwards(self: OpRunner, op: Any, **fields: Any) -> None:
        if op.kind is not OpKind.FORWARD:
            record(self, op, **fields)

    OpRunner._record = without_forwards  # type: ignore[method-assign]
    run_miner(make_engine=NoisyForwards)


def second_receipts() -> None:
    """Claims each op a second time."""
    record = OpRunner._record

    def twice(self: OpRunner, op: Any, **fields: Any) -> None:
        fresh = self.log.find(op.key) is None
        record(self, op, **fields)
        if fresh and op.kind is not OpKind.STEP:
            last = self.log.after(self.log.count - 1)
            assert last is not None
            again = last.receipts[-1].model_dump(exclude={"seq", "previous"})
            self.log.append(again)

    OpRunner._record = twice  # type: ignore[method-assign]
    run_miner()


# ---- words -------------------------------------------------------------------------------------


def denier() -> None:
    """Says of every frame from its neighbours that it is missing, and works with it all the same."""

    def say_missing(self: Replica, delivered: Any) -> None:
        if isinstance(delivered.event, FrameReady):
            name = delivered.event.notice.name
            self._talk.send(reports=[FrameMissing(name=name, reason="it is not there")])

    _on_event(say_missing)


def crier() -> None:
    """Cries NaN on every fourth microbatch, where its activations reach it."""

    def say_bad(self: Replica, delivered: Any) -> None:
        if isinstance(delivered.event, FrameReady):
            name = delivered.event.notice.name
            if name.direction is Direction.FORWARD and name.microbatch % 4 == 0:
                word = BadValue(epoch=name.epoch, step=name.step, microbatch=name.microbatch)
                self._talk.send(reports=[self._signed(word)])

    _on_event(say_bad)


def _on_event(react: Any) -> None:
    from miner import replica

    check = replica.check_plan

    def checked(spec: Any, reply: Any, hotkey: Any, delivered: Any) -> None:
        check(spec, reply, hotkey, delivered)
        react(_LIVES[-1], delivered)

    prepare = Replica.__post_init__

    def remember(self: Replica) -> None:
        prepare(self)
        _LIVES.append(self)

    Replica.__post_init__ = remember  # type: ignore[method-assign]
    replica.check_plan = checked
    run_miner()


_LIVES: list[Replica] = []
"""The replica of this process, for cheats that speak."""
