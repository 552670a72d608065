"""Re-execution: a miner's ops again on this machine, each held against its receipt.

Everything here runs in one worker thread; the shell feeds it one op at a time, so that the loop
stays responsive and the compute cap can pause between any two ops.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from blake3 import blake3

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire
from iota.compute.determinism import device_class
from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch, Output
from iota.compute.sketch import SketchKey, sketch
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.outer.partition import part_bytes, split
from iota.outer.pseudo_gradient import pseudo_gradient
from iota.protocol.receipts import OpKind, Receipt
from iota.settings import Recompute
from iota.spec import RunSpec
from validator.audits.tolerance import (
    EXACT,
    Mismatch,
    Profile,
    compare_output,
    compare_step,
    profile_for,
    sketch_distance,
)

_T = TypeVar("_T")
_THREADS = re.compile(r"/t(\d{1,4})/")


@dataclass(frozen=True)
class OpInputs:
    """What one microbatch's op worked on."""

    tokens: Tokens
    stage_input: bytes | None = None
    gradient: bytes | None = None


@dataclass(frozen=True)
class Finding:
    """The first op that does not agree with its receipt."""

    seq: int
    mismatch: Mismatch


def threads_for(device: str, own: int, most: int) -> int:
    """Threads to replay with: the miner's own count where that makes the device classes equal."""
    match = _THREADS.search(device)
    theirs = int(match[1]) if match else 0
    if 1 <= theirs <= most and device_class("cpu", theirs) == device:
        return theirs
    return own


class Replay:
    """One miner's stage on this machine's CPU. `device` is the class that its receipts name."""

    def __init__(
        self, spec: RunSpec, stage: int, device: str, *, threads: int = 1, most_threads: int = 1
    ) -> None:
        self.spec = spec
        self._threads = threads_for(device, threads, most_threads)
        self.profile: Profile = profile_for(spec, device_class("cpu", self._threads), device)
        self._engine = self._on_thread(lambda: Engine(spec, stage, recompute=Recompute.NEVER))
        self._last = stage == spec.last_stage

    def load(self, state: StageState, version: int) -> None:
        """Start from weights (and moments) as `version`."""
        self._on_thread(lambda: self._engine.load(state, version=version))

    def adopt(self, state: StageState, version: int) -> None:
        """Put a snapshot on top, keeping the gradient that was summed at the version before."""
        self._on_thread(lambda: self._engine.adopt(state, version=version))

    def op(self, receipt: Receipt, version: int, inputs: OpInputs) -> Finding | None:
        """Run one FORWARD, BACKWARD or LOSS alone."""
        mb = Microbatch(receipt.epoch, receipt.step, receipt.microbatch, receipt.attempt)

        def run() -> Output:
            if receipt.kind is OpKind.FORWARD:
                return self._engine.forward(mb, version, inputs.stage_input, inputs.tokens)
            if receipt.kind is OpKind.LOSS:
                return self._engine.loss(mb, version, inputs.stage_input, inputs.tokens)
            self._engine.remember(mb, version, inputs.stage_input, inputs.tokens)
            return self._backward(mb, version, inputs)

        return self._checked(receipt, run)

    def sent(self, receipt: Receipt, payload: bytes) -> Finding | None:
        """Hold a receipt's sketch against the payload that its miner sent."""
        key = SketchKey(
            self.spec.id, receipt.stage, receipt.kind.value, receipt.epoch, receipt.step, receipt.microbatch
        )
        tensor = decode_wire(payload, payload_shape(self.spec), self.spec.boundary.wire)
        own = sketch(tensor, key)
        apart = sketch_distance(EXACT, receipt.sketch, own)
        if apart is None:
            return None
        return Finding(receipt.seq, Mismatch("", "", f"its sketch is not that of what it sent: {apart}"))

    def accumulate(
        self, backward: Receipt, forward: Receipt | None, version: int, inputs: OpInputs
    ) -> Finding | None:
        """Add one counted microbatch to its step's gradient, checking its FORWARD and its BACKWARD or LOSS.

        `forward` is None at the last stage, and where only the backward was re-routed here.
        """
        if self._last:
            return self.op(backward, version, inputs)
        mb = Microbatch(backward.epoch, backward.step, backward.microbatch, backward.attempt)
        if forward is None:
            self._on_thread(lambda: self._engine.remember(mb, version, inputs.stage_input, inputs.tokens))
        else:
            found = self._checked(
                forward, lambda: self._engine.forward(mb, version, inputs.stage_input, inputs.tokens)
            )
            if found is not None:
                return found
        return self._checked(backward, lambda: self._backward(mb, version, inputs))

    def step(self, receipt: Receipt, count: int, learning_rate: float) -> Finding | None:
        """STEP over what was accumulated."""

        def run() -> Mismatch | None:
            replayed = self._engine.step(receipt.step, count, learning_rate, epoch=receipt.epoch)
            return compare_step(self.profile, receipt, replayed)

        return self._found(receipt, run)

    def delta_digests(self, base: StageState) -> list[str]:
        """Digests of the parts of the pseudo-gradient from `base` to the newest weights."""

        def run() -> list[str]:
            vector = pseudo_gradient(base.weights, self._engine.state().weights).numpy()
            return [blake3(part_bytes(p)).hexdigest() for p in split(vector, self.spec.outer.part_elements)]

        return self._on_thread(run)

    def _backward(self, mb: Microbatch, version: int, inputs: OpInputs) -> Output:
        assert inputs.gradient is not None
        return self._engine.backward(mb, version, inputs.gradient)

    def _checked(self, receipt: Receipt, run: Callable[[], Output]) -> Finding | None:
        return self._found(receipt, lambda: compare_output(self.profile, receipt, run()))

    def _found(self, receipt: Receipt, run: Callable[[], Mismatch | None]) -> Finding | None:
        try:
            mismatch = self._on_thread(run)
        except BadValueError as error:
            mismatch = Mismatch("", receipt.output, f"the replay gives no finite value: {error}")
        return None if mismatch is None else Finding(receipt.seq, mismatch)

    def _on_thread(self, run: Callable[[], _T]) -> _T:
        # Torch keeps the count per thread, and another replay on this one may have used another.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        return run()
