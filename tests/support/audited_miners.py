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
from iota.compute.commitment import commitment
from iota.compute.determinism import device_class
from iota.compute.engine import Engine
from iota.compute.fingerprint import fingerprint
from iota.compute.state import StageState
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.outer.error_feedback import encode_part, feedback_leaf, feedback_root, write_feedback
from iota.outer.merge import MergedPart
from iota.outer.nesterov import OuterState
from iota.outer.partition import Vector, split
from iota.outer.pseudo_gradient import pseudo_gradient
from iota.protocol.fingerprints import Fingerprint, fingerprint_nonce
from iota.protocol.merges import LeftOut
from iota.protocol.merkle import EMPTY, merkle_root
from iota.protocol.receipts import (
    GENESIS,
    RECEIPTS_DOMAIN,
    Beginning,
    Commitment,
    OpKind,
    Receipt,
    ReceiptBatch,
    StepUpdate,
    counted_digest,
    signed_payload,
)
from iota.spec import RunSpec, StateRule, json_digest


class Honest:
    """What a miner does with its work. Cheats change one part of it."""

    def output(self, miner: Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        """What it claims and sends."""
        return output

    def step(self, miner: Miner, step: int, count: int, rate: float, epoch: int) -> StepUpdate:
        """STEP, and what it says that it applied."""
        made = miner.engine.step(step, count, rate).read().result()
        return StepUpdate(
            gradient_norm=made.gradient_norm,
            counted=counted_digest((index, 0) for index in range(count)),
            learning_rate=miner.spec.learning_rate(epoch, step),
        )

    def commits(self, version: int, state: StageState) -> StageState:
        """The state that it commits to, and keeps, at a version."""
        return state

    def fingerprint(self, miner: Miner, nonce: str) -> Fingerprint:
        """What it shows of its device: other bits than this machine's, if it names another class."""
        if miner.device == device_class("cpu", torch.get_num_threads()):
            return fingerprint(miner.spec, miner.stage, "cpu", nonce)
        parts = Fingerprint.model_fields
        return Fingerprint(**{name: json_digest([miner.device, nonce, name]) for name in parts})

    def delta(self, delta: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return delta

    def keeps(self, left: list[Vector]) -> list[Vector]:
        """The error feedback that it commits to, by part, and begins the next epoch with."""
        return left

    def start(self, miner: Miner, epoch: int, own: Vector, anchor: OuterState) -> Vector:
        """The weights with which it begins an epoch of a run with overlap, where it has its own start."""
        return own

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
        return resent(miner.spec, output, noise)


class ZeroBackward(Honest):
    """Runs its forwards and sends gradients of zero."""

    def output(self, miner: Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        if kind is not OpKind.BACKWARD:
            return output
        return resent(miner.spec, output, torch.zeros(payload_shape(miner.spec)))


class FalseLoss(Honest):
    """Claims a better loss than it has."""

    def output(self, miner: Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        return output if output.loss is None else replace(output, loss=output.loss / 2)


class SkipsStep(Honest):
    """Never updates its weights and says so in its own commitments."""

    def step(self, miner: Miner, step: int, count: int, rate: float, epoch: int) -> StepUpdate:
        return super().step(miner, step, count, 0.0, epoch)


class StaleWeights(Honest):
    """Commits to the true update, and computes its next ops with the base all the same."""

    def __init__(self) -> None:
        self.base: StageState | None = None

    def step(self, miner: Miner, step: int, count: int, rate: float, epoch: int) -> StepUpdate:
        self.base = self.base or StageState.initial(miner.spec, miner.stage)
        update = super().step(miner, step, count, rate, epoch)
        miner.keep_snapshot(step + 1)
        miner.engine.load(self.base, version=step + 1)
        return update


class NudgedStep(Honest):
    """Nudges one element of one weight in one STEP, by a share of its change, and goes on from there."""

    def __init__(self, at: int = 1, share: float = 1.0) -> None:
        self.at, self.share = at, share

    def step(self, miner: Miner, step: int, count: int, rate: float, epoch: int) -> StepUpdate:
        before = miner.engine.state()
        update = super().step(miner, step, count, rate, epoch)
        if step == self.at:
            state = miner.engine.state()
            name = max(state.weights, key=lambda each: state.weights[each].numel())
            change = (state.weights[name] - before.weights[name]).reshape(-1)
            state.weights[name].reshape(-1)[0] += self.share * float(change.norm())
            miner.engine.load(state, version=step + 1)
        return update


class FalseNorm(Honest):
    """Names another gradient norm than it had."""

    def step(self, miner: Miner, step: int, count: int, rate: float, epoch: int) -> StepUpdate:
        update = super().step(miner, step, count, rate, epoch)
        return update.model_copy(update={"gradient_norm": update.gradient_norm / 2})


class FalseCommit(Honest):
    """Commits at one version to a state with another group than it has, and keeps that."""

    def __init__(self, version: int, group: str) -> None:
        self.version, self.group = version, group

    def commits(self, version: int, state: StageState) -> StageState:
        if version != self.version:
            return state
        false = {name: tensor * 1.5 for name, tensor in getattr(state, self.group).items()}
        return replace(state, **{self.group: false})


class PoisonedDelta(Honest):
    """Scales its pseudo-gradient by a factor."""

    def __init__(self, factor: float = 1.01) -> None:
        self.factor = np.float32(factor)

    def delta(self, delta: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return delta * self.factor


class FalseFeedback(Honest):
    """Keeps other error feedback than its pseudo-gradient leaves."""

    def keeps(self, left: list[Vector]) -> list[Vector]:
        return [part * np.float32(2) for part in left]


class NudgedDelta(Honest):
    """Moves one element of its pseudo-gradient to the next number."""

    def delta(self, delta: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        nudged = delta.copy()
        nudged[len(nudged) // 2] = np.nextafter(nudged[len(nudged) // 2], np.float32(1))
        return nudged


def resent(spec: RunSpec, output: Output, values: torch.Tensor) -> Output:
    """The output with other values (B, T, k) in its payload."""
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
        self.held: list[Vector] = []
        """The error feedback that it began the epoch with, by part; empty for none."""
        self.left: list[Vector] = []
        """What its pseudo-gradient of the epoch leaves."""
        self.encoded: list[bytes] = []
        """Its pseudo-gradient of the epoch, by part."""
        self.ended: dict[int, Commitment] = {}
        """Epoch to whose merges it contributed -> its last commitment."""
        self.rest = EMPTY
        """Root of what else is in its base (`BaseRoots.rest`)."""
        self.start: dict[str, torch.Tensor] = {}
        """The weights with which it began the epoch."""

    @property
    def hotkey(self) -> str:
        return self.key.ss58

    def version(self, step: int) -> int:
        """The weight version that its ops of a step use."""
        return self.spec.weight_version(step, self.joined)

    def keep_snapshot(self, version: int) -> None:
        if version not in self.frozen:
            self.snapshots[version] = self.way.commits(version, self.engine.state())
            self.frozen.add(version)

    def commit(self, epoch: int, version: int) -> None:
        """The receipt of a COMMIT to the snapshot of a version."""
        shown = self.left if version == self.spec.schedule.steps else []
        if version == self.joined:
            shown = self.held
        root = feedback_root(feedback_leaf(write_feedback(part)) for part in shown)
        made = commitment(self.snapshots[version], self.spec.outer.part_elements, feedback=root)
        if version == self.joined:
            base = merkle_root([made.weights, self.rest])
            nonce = fingerprint_nonce(self.spec.id, epoch, base, self.hotkey)
            begun = Beginning(rest=self.rest, fingerprint=self.way.fingerprint(self, nonce))
            made = made.model_copy(update={"beginning": begun})
        fields = {"epoch": epoch, "step": version, "version": version, "kind": OpKind.COMMIT}
        self.write(**fields, output=made.root, commitment=made)

    def hold(self, held: list[Vector]) -> bytes:
        """Begin an epoch with this error feedback, by part; as it is delivered."""
        self.held = held
        return b"".join(map(write_feedback, held))

    def carried(self, epoch: int) -> dict[str, str | None]:
        """What the record of an epoch says that it may begin with."""
        last, carry = self.ended.get(epoch - 1), self.spec.optimizer.state is StateRule.CARRY
        feeds = self.spec.outer.codec.has_feedback
        return {
            "moments": last.moments if last is not None and carry else None,
            "feedback": last.feedback if last is not None and feeds else None,
        }

    def encode(self, base: dict[str, torch.Tensor]) -> None:
        """Make the pseudo-gradient of the epoch, which began with these weights, and what it leaves."""
        vector = self.way.delta(pseudo_gradient(base, self.engine.state().weights).numpy())
        outer, self.encoded, left = self.spec.outer, [], []
        for number, part in enumerate(split(vector, outer.part_elements)):
            data, rest = encode_part(outer, part, self.held[number] if self.held else None)
            self.encoded.append(data)
            left += [] if rest is None else [rest]
        self.left = self.way.keeps(left)

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
