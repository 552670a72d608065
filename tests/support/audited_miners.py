"""Replicas with real engines and receipt chains: an honest one, and those that cheat in one part."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from blake3 import blake3

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute import Microbatch, Output
from iota.compute.engine import Engine
from iota.compute.state import StageState
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.outer.merge import MergedPart
from iota.outer.nesterov import OuterState
from iota.protocol.merges import LeftOut
from iota.protocol.receipts import (
    GENESIS,
    RECEIPTS_DOMAIN,
    OpKind,
    Receipt,
    ReceiptBatch,
    StepState,
    counted_digest,
    signed_payload,
)
from iota.spec import RunSpec


class Honest:
    """What a miner does with its work. Cheats change one part of it."""

    def output(self, miner: Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        """What it claims and sends."""
        return output

    def step(self, miner: Miner, step: int, count: int, rate: float, epoch: int) -> StepState:
        """STEP, and what it commits to."""
        made = miner.engine.step(step, count, rate, epoch=epoch)
        return StepState(
            weights=made.weights,
            moments=made.moments,
            change_sketch=made.change_sketch,
            moments_sketch=made.moments_sketch,
            gradient_norm=made.gradient_norm,
            counted=counted_digest((index, 0) for index in range(count)),
            learning_rate=miner.spec.learning_rate(epoch, step),
        )

    def delta(self, delta: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return delta

    def merged(self, stage: int, made: MergedPart) -> MergedPart:
        """What it says that the merge of a part of `stage` gives."""
        return made

    def next_base(self, epoch: int, made: OuterState) -> OuterState:
        """The base of `epoch` that it reports and stores."""
        return made


class FalseBase(Honest):
    """Stores other weights than base and merge give."""

    def next_base(self, epoch: int, made: OuterState) -> OuterState:
        return OuterState(made.weights * np.float32(1.5), made.momentum) if epoch else made


class FalseMerge(Honest):
    """Writes other values into the parts of one stage that it merges; all of its kind write the same."""

    def __init__(self, stage: int) -> None:
        self.stage = stage

    def merged(self, stage: int, made: MergedPart) -> MergedPart:
        return replace(made, data=bytes(len(made.data))) if stage == self.stage else made


class Accuses(Honest):
    """Leaves an honest pseudo-gradient out of the merges of one stage, for a false reason."""

    def __init__(self, stage: int, hotkey: str, why: LeftOut = LeftOut.NOT_FINITE) -> None:
        self.stage, self.hotkey, self.why = stage, hotkey, why

    def merged(self, stage: int, made: MergedPart) -> MergedPart:
        if stage != self.stage:
            return made
        return MergedPart(bytes(len(made.data)), {self.hotkey: self.why})


class Noise(Honest):
    """Sends noise for its forwards."""

    def output(self, miner: Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        if kind is not OpKind.FORWARD:
            return output
        noise = torch.randn(payload_shape(miner.spec), generator=torch.Generator().manual_seed(mb.index))
        return _resent(miner.spec, output, noise)


class ZeroBackward(Honest):
    """Runs its forwards and sends gradients of zero."""

    def output(self, miner: Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        if kind is not OpKind.BACKWARD:
            return output
        return _resent(miner.spec, output, torch.zeros(payload_shape(miner.spec)))


class FalseLoss(Honest):
    """Claims a better loss than it has."""

    def output(self, miner: Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        return output if output.loss is None else replace(output, loss=output.loss / 2)


class SkipsStep(Honest):
    """Never updates its weights and says so in its own commitments."""

    def step(self, miner: Miner, step: int, count: int, rate: float, epoch: int) -> StepState:
        return super().step(miner, step, count, 0.0, epoch)


class StaleWeights(Honest):
    """Commits to the true update, and computes its next ops with the base all the same."""

    def __init__(self) -> None:
        self.base: StageState | None = None

    def step(self, miner: Miner, step: int, count: int, rate: float, epoch: int) -> StepState:
        self.base = self.base or StageState.initial(miner.spec, miner.stage)
        state = super().step(miner, step, count, rate, epoch)
        miner.keep_snapshot(step + 1)
        miner.engine.load(self.base, version=step + 1)
        return state


class PoisonedDelta(Honest):
    """Scales its pseudo-gradient."""

    def __init__(self, factor: float = 1.01) -> None:
        self.factor = np.float32(factor)

    def delta(self, delta: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return delta * self.factor


def _resent(spec: RunSpec, output: Output, values: torch.Tensor) -> Output:
    payload = encode_wire(values, spec.boundary.wire).numpy().tobytes()
    return replace(output, payload=payload, digest=blake3(payload).hexdigest())


class Miner:
    """One replica: an engine, a key and a receipt chain."""

    def __init__(self, spec: RunSpec, stage: int, way: Honest, device: str) -> None:
        self.spec, self.stage, self.way, self.device = spec, stage, way, device
        self.key = Hotkey.from_seed(blake3(f"miner {stage}".encode()).digest())
        self.engine = Engine(spec, stage)
        self.receipts: list[Receipt] = []
        self.snapshots: dict[int, StageState] = {}
        self.frozen: set[int] = set()
        self.joined = 0
        """The step at which its version was the base."""

    @property
    def hotkey(self) -> str:
        return self.key.ss58

    def version(self, step: int) -> int:
        """The weight version that its ops of a step use."""
        return self.spec.weight_version(step, self.joined)

    def keep_snapshot(self, version: int) -> None:
        if version not in self.frozen:
            self.snapshots[version] = self.engine.state()
            self.frozen.add(version)

    def write(self, **fields: Any) -> Receipt:
        previous = self.receipts[-1].content_digest() if self.receipts else GENESIS
        now = time.time()
        receipt = Receipt(
            seq=len(self.receipts) + 1,
            stage=fields.pop("stage", self.stage),
            started=now,
            ended=now,
            device=self.device,
            previous=previous,
            **fields,
        )
        self.receipts.append(receipt)
        return receipt


def batch(run: str, key: Hotkey, receipts: list[Receipt]) -> ReceiptBatch:
    payload = signed_payload(run, key.ss58, receipts[-1].content_digest())
    return ReceiptBatch(
        receipts=tuple(receipts), signature=key.sign(signing_bytes(RECEIPTS_DOMAIN, payload)).hex()
    )
