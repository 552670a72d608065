"""Replays a miner's ops on this machine and compares each with its receipt.

Everything here runs in the worker thread (`budget.Worker`), one op per call, so that the event loop stays
responsive and the compute cap can pause between any two ops.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from blake3 import blake3

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire, payload_tensor
from iota.compute.determinism import device_class
from iota.compute.engine import Engine, EngineFactory
from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from iota.compute.sketch import SketchKey, sketch
from iota.compute.state import StageState
from iota.outer import open_delta_codec
from iota.outer.partition import split
from iota.outer.pseudo_gradient import pseudo_gradient
from iota.protocol.receipts import MAX_LOSS, OpKind, Receipt
from iota.protocol.records import Word
from iota.settings import Recompute
from iota.spec import RunSpec
from validator.audits.tolerance import EXACT, compare_output, compare_step, profile_for, sketch_distance
from validator.core.jobs import OpInputs
from validator.core.results import ReplayMismatch

_T = TypeVar("_T")
_THREADS = re.compile(r"/t(\d{1,4})/")
"""The thread count in a CPU's device class."""


@dataclass(frozen=True)
class ReplayOptions:
    """The device and threads that this machine replays with."""

    device: str = "cpu"
    threads: int = 1
    max_threads: int = 1
    """Most threads that a replay may use to match a miner's device class."""
    make_engine: EngineFactory = Engine

    def matching(self, theirs: str) -> ReplayOptions:
        """These options with the miner's thread count, if that makes the device classes equal.

        Equal classes are compared to the bit, since they give the same bits.
        """
        match = _THREADS.search(theirs)
        threads = int(match[1]) if match else 0
        if 1 <= threads <= self.max_threads and device_class(self.device, threads) == theirs:
            return replace(self, threads=threads)
        return self


class Replay:
    """One miner's stage on this machine. `theirs` is the device class that its receipts name."""

    def __init__(self, spec: RunSpec, stage: int, theirs: str, options: ReplayOptions) -> None:
        self.spec = spec
        options = options.matching(theirs)
        self._threads = options.threads
        self.profile = profile_for(spec, device_class(options.device, self._threads), theirs)
        # No recomputation: a replay holds one microbatch at a time, so there is no memory to save.
        self._engine = self._on_thread(
            lambda: options.make_engine(spec, stage, device=options.device, recompute=Recompute.NEVER)
        )

    # ---- comparisons ---------------------------------------------------------------------------

    def op(
        self, receipt: Receipt, forward: Receipt | None, version: int, inputs: OpInputs
    ) -> ReplayMismatch | None:
        """Run and compare the op of `receipt`; of a BACKWARD first its FORWARD, if that is given.

        A BACKWARD or LOSS adds its microbatch to the gradient of its step.
        """
        mb = Microbatch(receipt.epoch, receipt.step, receipt.microbatch, receipt.attempt)
        stage_input = None if inputs.stage_input is None else payload_tensor(inputs.stage_input)
        engine, tokens = self._engine, inputs.tokens

        def run_forward() -> DeviceOutput:
            return engine.forward(mb, version, stage_input, tokens)

        def run_backward() -> DeviceOutput:
            assert inputs.gradient is not None
            return engine.backward(mb, version, payload_tensor(inputs.gradient))

        def recompute_backward() -> DeviceOutput:
            engine.remember(mb, version, stage_input, tokens)
            return run_backward()

        if receipt.kind is OpKind.LOSS:
            return self._checked(receipt, lambda: engine.loss(mb, version, stage_input, tokens))
        if receipt.kind is OpKind.FORWARD:
            return self._checked(receipt, run_forward)
        if forward is None:
            return self._checked(receipt, recompute_backward)
        return self._checked(forward, run_forward) or self._checked(receipt, run_backward)

    def is_finite(self, word: Word, version: int, inputs: OpInputs) -> bool:
        """Whether the ops of a word, as far as their inputs are there, give finite values here."""
        mb = Microbatch(word.epoch, word.step, word.microbatch, word.attempt)
        stage_input = None if inputs.stage_input is None else payload_tensor(inputs.stage_input)
        engine = self._engine

        def run() -> bool:
            try:
                if word.stage == self.spec.last_stage:
                    loss = engine.loss(mb, version, stage_input, inputs.tokens).read().result().loss
                    return loss is None or loss <= MAX_LOSS
                engine.forward(mb, version, stage_input, inputs.tokens).read().result()
                if inputs.gradient is not None:
                    engine.backward(mb, version, payload_tensor(inputs.gradient)).read().result()
            except BadValueError:
                return False
            return True

        return self._on_thread(run)

    def step(self, receipt: Receipt, count: int, learning_rate: float) -> ReplayMismatch | None:
        """Run and compare a STEP over the gradient of `count` microbatches that was summed."""

        def run() -> ReplayMismatch | None:
            made = self._engine.step(receipt.step, count, learning_rate, epoch=receipt.epoch)
            return compare_step(self.profile, receipt, made)

        return self._found(receipt, run)

    def sent(self, receipt: Receipt, payload: bytes) -> ReplayMismatch | None:
        """Compare a receipt's sketch with the payload that its miner sent."""
        key = SketchKey(
            self.spec.id, receipt.stage, receipt.kind.value, receipt.epoch, receipt.step, receipt.microbatch
        )
        tensor = decode_wire(payload_tensor(payload), payload_shape(self.spec), self.spec.boundary.wire)
        apart = sketch_distance(EXACT, receipt.sketch, sketch(tensor, key))
        if apart is None:
            return None
        return ReplayMismatch(receipt.seq, "", "", f"its sketch is not that of what it sent: {apart}")

    def delta_digests(self, base: StageState) -> list[str]:
        """BLAKE3 (hex) of each encoded part of the pseudo-gradient from `base` to the newest weights."""

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
        # Torch keeps the count per thread, and an earlier replay on this thread may have set another.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        return run()

    # ---- the engine ----------------------------------------------------------------------------

    def load(self, state: StageState, version: int) -> None:
        """Start from a state as weight version `version`; without moments they are zero."""
        self._on_thread(lambda: self._engine.load(state, version=version))

    def adopt(self, state: StageState, version: int) -> None:
        """Replace the state by a later version, but keep the gradient summed at the version before."""
        self._on_thread(lambda: self._engine.adopt(state, version=version))
