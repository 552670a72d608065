"""Cheats in what a miner sends: false outputs, gradients, losses and precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

import miner.node
import miner.ops
from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire, encode_wire
from iota.compute.accumulate import OpenStep
from iota.compute.engine import Engine
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.protocol.fingerprints import Fingerprint
from iota.protocol.receipts import OpKind
from iota.spec import Precision, RunSpec
from tests.support.cheats.first_lie import lied
from tests.support.miner_program import run_miner

OTHER_CLASS: Final = "cuda/NVIDIA A100-SXM4-80GB/cuda12.8/torch2.13.0"
"""A device class that no miner of these swarms has."""
BACKWARDS: Final = frozenset({OpKind.BACKWARD, OpKind.LOSS})
ALL: Final = BACKWARDS | {OpKind.FORWARD}
RARE: Final = 20
"""An occasional cheat lies in one of so many ops."""


@dataclass(frozen=True)
class Work:
    """An op that sends a tensor, and what it came to."""

    spec: RunSpec
    kind: OpKind
    mb: Microbatch
    version: int
    received: Tensor | None
    """Payload that it computes from: a BACKWARD's gradient, else the stage's input; None at stage 0."""
    sent: Tensor
    """True result (B, T, k) after the wire's rounding."""

    def unpacked(self) -> Tensor:
        """What was received, (B, T, k)."""
        assert self.received is not None
        return decode_wire(self.received, payload_shape(self.spec), self.spec.boundary.wire)


Change = Callable[[Work], Tensor | None]
"""What is sent in place of a result; None: the result itself."""


class FalseEngine(Engine):
    """Computes, and of some kinds of ops sends what `change` makes of the result."""

    def __init__(
        self, spec: RunSpec, stage: int, *, change: Change, kinds: frozenset[OpKind] = ALL, **parts: Any
    ) -> None:
        super().__init__(spec, stage, **parts)
        self._change, self._kinds = change, kinds

    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        made = super().forward(mb, version, stage_input, tokens)
        return self._false(OpKind.FORWARD, mb, version, stage_input, made)

    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        made = super().loss(mb, version, stage_input, tokens)
        return self._false(OpKind.LOSS, mb, version, stage_input, made)

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        return self._false(OpKind.BACKWARD, mb, version, gradient, super().backward(mb, version, gradient))

    def evaluate(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        made = super().evaluate(mb, version, stage_input, tokens)
        return self._false(OpKind.FORWARD, mb, version, stage_input, made)

    def _false(
        self, kind: OpKind, mb: Microbatch, version: int, received: Tensor | None, made: DeviceOutput
    ) -> DeviceOutput:
        if made.payload is None or kind not in self._kinds:
            return made
        wire = self.spec.boundary.wire
        sent = decode_wire(made.payload.clone(), payload_shape(self.spec), wire)
        false = self._change(Work(self.spec, kind, mb, version, received, sent))
        if false is None:
            return made
        lied(mb.epoch, mb.step)
        return dataclasses.replace(made, hashed_N=encode_wire(false, wire))


def sends(change: Change, kinds: frozenset[OpKind] = ALL) -> None:
    """Run a miner that sends what `change` makes of its results."""
    run_miner(make_engine=partial(FalseEngine, change=change, kinds=kinds))


def random_tensor(work: Work) -> Tensor:
    """Noise of the right shape."""
    return torch.randn(payload_shape(work.spec))


def of_one_size(work: Work) -> Tensor:
    """The same value everywhere."""
    return torch.full(payload_shape(work.spec), 0.01)


def after_the_base(work: Work) -> Tensor | None:
    """Constants, and the truth in the base's version."""
    return None if work.version == 0 else of_one_size(work)


def noise() -> None:
    """Sends noise of the right size, signed and on time."""
    sends(random_tensor)


def noise_forward() -> None:
    """Sends noise forward alone."""
    sends(random_tensor, frozenset({OpKind.FORWARD}))


def scaled_noise() -> None:
    """Sends noise that has the norm of the true result."""

    def scaled(work: Work) -> Tensor:
        drawn = torch.randn_like(work.sent)
        return drawn * (work.sent.norm() / drawn.norm())

    sends(scaled)


def zeros() -> None:
    """Sends zeros."""
    sends(lambda work: torch.zeros_like(work.sent))


def constants() -> None:
    """Sends constants."""
    sends(of_one_size)


def identity() -> None:
    """Sends on what it received, as a stage without layers would."""
    sends(lambda work: work.unpacked())


def repeats() -> None:
    """Computes the first microbatch of a step, and sends its results for all others."""
    first: dict[tuple[OpKind, int, int], Tensor] = {}

    def repeated(work: Work) -> Tensor | None:
        key = (work.kind, work.mb.epoch, work.mb.step)
        if key not in first:
            first[key] = work.sent
            return None
        return first[key]

    sends(repeated)


def half_batch() -> None:
    """Computes the first half of a microbatch's sequences, and sends them twice."""

    def padded(work: Work) -> Tensor:
        half = len(work.sent) // 2
        return torch.cat([work.sent[:half], work.sent[:half]])

    sends(padded)


def one_token() -> None:
    """Sends one token's activations of each microbatch as zeros."""

    def holed(work: Work) -> Tensor:
        work.sent[0, 0] = 0
        return work.sent

    sends(holed)


def occasional() -> None:
    """Sends noise in 5 % of its ops."""
    count = 0

    def rarely(work: Work) -> Tensor | None:
        nonlocal count
        count += 1
        return random_tensor(work) if count % RARE == RARE // 2 else None

    sends(rarely)


def no_backward() -> None:
    """Forwards right, and sends zeros backward."""
    sends(lambda work: torch.zeros_like(work.sent), BACKWARDS)


def scaled_backward() -> None:
    """Forwards right, and sends three times the gradient."""
    sends(lambda work: 3 * work.sent, BACKWARDS)


def flipped_backward() -> None:
    """Forwards right, and sends the gradient with the other sign."""
    sends(lambda work: -work.sent, BACKWARDS)


class FalseLoss(Engine):
    """Receipts half of the loss."""

    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        made = super().loss(mb, version, stage_input, tokens)
        assert made.loss is not None
        lied(mb.epoch, mb.step)
        return dataclasses.replace(made, loss=made.loss / 2)


def false_loss() -> None:
    """Receipts half of each loss."""
    run_miner(make_engine=FalseLoss)


class FalseHeldoutLoss(Engine):
    """Receipts half of the held-out loss, and works honestly otherwise."""

    def evaluate(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        made = super().evaluate(mb, version, stage_input, tokens)
        if made.loss is None:
            return made
        lied(mb.epoch, mb.step)
        return dataclasses.replace(made, loss=made.loss / 2)


def false_heldout_loss() -> None:
    """Receipts half of each held-out loss."""
    run_miner(make_engine=FalseHeldoutLoss)


class HeldoutNoise(Engine):
    """Sends noise for its forwards of held-out microbatches, and works honestly otherwise."""

    def evaluate(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        made = super().evaluate(mb, version, stage_input, tokens)
        if made.payload is None:
            return made
        lied(mb.epoch, mb.step)
        noise = encode_wire(torch.randn(payload_shape(self.spec)), self.spec.boundary.wire)
        return dataclasses.replace(made, hashed_N=noise)


def heldout_noise() -> None:
    """Sends noise for its forwards of held-out microbatches alone."""
    run_miner(make_engine=HeldoutNoise)


class StaleEngine(Engine):
    """Takes each step's graphs and gradients at the weights that it loaded."""

    def load(self, state: StageState, *, version: int) -> None:
        super().load(state, version=version)
        self._loaded = {name: w.to(self.device, copy=True) for name, w in state.weights.items()}

    def _open(self, step: int, version: int) -> OpenStep:
        fresh = step not in self._steps
        opened = super()._open(step, version)
        if fresh and version > 0:
            lied(0, step)
            opened = self._steps[step] = OpenStep(version, self._loaded)
        return opened


def stale() -> None:
    """Always computes with the base's weights."""
    run_miner(make_engine=StaleEngine)


class Bf16Engine(Engine):
    """Computes in bf16, whatever the spec says."""

    def __init__(self, spec: RunSpec, stage: int, **parts: Any) -> None:
        super().__init__(spec.model_copy(update={"precision": Precision.BF16_MASTER}), stage, **parts)

    def _open(self, step: int, version: int) -> OpenStep:
        lied(0, step)
        return super()._open(step, version)


def low_precision() -> None:
    """Computes in bf16 where the spec says fp32, and names its true device class."""
    run_miner(make_engine=Bf16Engine)


def low_precision_elsewhere() -> None:
    """The same, and names and shows the class of a device that nobody has."""
    _elsewhere()
    low_precision()


def noise_elsewhere() -> None:
    """Sends noise of the result's norm, and names and shows the class of a device that nobody has."""
    _elsewhere()
    scaled_noise()


def _elsewhere() -> None:
    shown = Fingerprint(**dict.fromkeys(Fingerprint.model_fields, "1" * 64))
    miner.node.device_class = lambda device, threads: OTHER_CLASS
    miner.ops.fingerprint = lambda *given: shown
