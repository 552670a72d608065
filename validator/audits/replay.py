"""Re-execution: a miner's ops again on this machine, each held against its receipt.

Everything here runs in one worker thread; the shell feeds it one op at a time, so that the loop
stays responsive and the compute cap can pause between any two ops.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from blake3 import blake3
from torch import Tensor

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire, payload_tensor
from iota.compute.determinism import device_class
from iota.compute.engine import Engine, EngineFactory
from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch, StepOutput
from iota.compute.output import DeviceOutput
from iota.compute.sketch import SketchKey, sketch
from iota.compute.state import StageState
from iota.outer import open_delta_codec
from iota.outer.partition import split
from iota.outer.pseudo_gradient import pseudo_gradient
from iota.protocol.receipts import OpKind, Receipt
from iota.settings import Recompute
from iota.spec import RunSpec
from validator.audits.tolerance import EXACT, compare_output, compare_step, profile_for, sketch_distance
from validator.core.jobs import OpInputs
from validator.core.results import Profile, ReplayMismatch

_T = TypeVar("_T")
_THREADS = re.compile(r"/t(\d{1,4})/")


@dataclass(frozen=True)
class ReplayOptions:
    """How this machine replays."""

    device: str = "cpu"
    threads: int = 1
    max_threads: int = 1
    """Threads that a replay may use to match a miner's device class."""
    make_engine: EngineFactory = Engine

    def matching(self, theirs: str) -> ReplayOptions:
        """With the miner's own thread count, where that makes the device classes equal."""
        match = _THREADS.search(theirs)
        threads = int(match[1]) if match else 0
        if 1 <= threads <= self.max_threads and device_class(self.device, threads) == theirs:
            return replace(self, threads=threads)
        return self


class Replay:
    """One miner's stage on this machine. `theirs` is the device class that the miner's receipts name."""

    def __init__(self, spec: RunSpec, stage: int, theirs: str, options: ReplayOptions) -> None:
        self.spec = spec
        options = options.matching(theirs)
        self._threads = options.threads
        self.profile: Profile = profile_for(spec, device_class(options.device, self._threads), theirs)
        self._engine = self._on_thread(
            lambda: options.make_engine(spec, stage, device=options.device, recompute=Recompute.NEVER)
        )
        self._last = stage == spec.last_stage

    # ---- comparisons ---------------------------------------------------------------------------

    def op(
        self, receipt: Receipt, forward: Receipt | None, version: int, inputs: OpInputs
    ) -> ReplayMismatch | None:
        """Run the op of `receipt`; of a BACKWARD, the FORWARD before it is checked as well where it is given.

        A BACKWARD or LOSS adds its microbatch to the gradient of its step.
        """
        if forward is not None and not self._last:
            found = self._checked(forward, lambda: self._forward(receipt, version, inputs))
            return found or self._checked(receipt, lambda: self._backward(receipt, version, inputs))

        def run() -> DeviceOutput:
            if receipt.kind is OpKind.FORWARD:
                return self._forward(receipt, version, inputs)
            if receipt.kind is OpKind.LOSS:
                return self._loss(receipt, version, inputs)
            self._remember(receipt, version, inputs)
            return self._backward(receipt, version, inputs)

        return self._checked(receipt, run)

    def step(self, receipt: Receipt, count: int, learning_rate: float) -> ReplayMismatch | None:
        """STEP over what was accumulated."""
        return self._found(
            receipt, lambda: compare_step(self.profile, receipt, self._step(receipt, count, learning_rate))
        )

    def sent(self, receipt: Receipt, payload: bytes) -> ReplayMismatch | None:
        """Hold a receipt's sketch against the payload that its miner sent."""
        key = SketchKey(
            self.spec.id, receipt.stage, receipt.kind.value, receipt.epoch, receipt.step, receipt.microbatch
        )
        tensor = decode_wire(payload_tensor(payload), payload_shape(self.spec), self.spec.boundary.wire)
        apart = sketch_distance(EXACT, receipt.sketch, sketch(tensor, key))
        if apart is None:
            return None
        return ReplayMismatch(receipt.seq, "", "", f"its sketch is not that of what it sent: {apart}")

    def delta_digests(self, base: StageState) -> list[str]:
        """Digests of the parts of the pseudo-gradient from `base` to the newest weights."""

        def run() -> list[str]:
            vector = pseudo_gradient(base.weights, self._engine.state().weights).numpy()
            encode = open_delta_codec().encode
            return [blake3(encode(p)).hexdigest() for p in split(vector, self.spec.outer.part_elements)]

        return self._on_thread(run)

    def _checked(self, receipt: Receipt, run: Callable[[], DeviceOutput]) -> ReplayMismatch | None:
        return self._found(receipt, lambda: compare_output(self.profile, receipt, run().read().result()))

    def _found(self, receipt: Receipt, run: Callable[[], ReplayMismatch | None]) -> ReplayMismatch | None:
        try:
            return self._on_thread(run)
        except BadValueError as error:
            reason = f"the replay gives no finite value: {error}"
            return ReplayMismatch(receipt.seq, "", receipt.output, reason)

    def _on_thread(self, run: Callable[[], _T]) -> _T:
        # Torch keeps the count per thread, and another replay on this one may have used another.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        return run()

    # ---- the engine ----------------------------------------------------------------------------

    def load(self, state: StageState, version: int) -> None:
        """Start from weights (and moments) as `version`."""
        self._on_thread(lambda: self._engine.load(state, version=version))

    def adopt(self, state: StageState, version: int) -> None:
        """Put a snapshot on top, keeping the gradient that was summed at the version before."""
        self._on_thread(lambda: self._engine.adopt(state, version=version))

    def _forward(self, receipt: Receipt, version: int, inputs: OpInputs) -> DeviceOutput:
        return self._engine.forward(_microbatch(receipt), version, _payload(inputs), inputs.tokens)

    def _loss(self, receipt: Receipt, version: int, inputs: OpInputs) -> DeviceOutput:
        return self._engine.loss(_microbatch(receipt), version, _payload(inputs), inputs.tokens)

    def _remember(self, receipt: Receipt, version: int, inputs: OpInputs) -> None:
        self._engine.remember(_microbatch(receipt), version, _payload(inputs), inputs.tokens)

    def _backward(self, receipt: Receipt, version: int, inputs: OpInputs) -> DeviceOutput:
        assert inputs.gradient is not None
        return self._engine.backward(_microbatch(receipt), version, payload_tensor(inputs.gradient))

    def _step(self, receipt: Receipt, count: int, learning_rate: float) -> StepOutput:
        return self._engine.step(receipt.step, count, learning_rate, epoch=receipt.epoch)


def _payload(inputs: OpInputs) -> Tensor | None:
    return None if inputs.stage_input is None else payload_tensor(inputs.stage_input)


def _microbatch(receipt: Receipt) -> Microbatch:
    return Microbatch(receipt.epoch, receipt.step, receipt.microbatch, receipt.attempt)
