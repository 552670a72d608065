"""Replays a miner's ops on this machine and compares each with its receipt.

Everything here runs in the worker thread (`budget.Worker`), one op per call, so that the event loop stays
responsive and the compute cap can pause between any two ops.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import torch
from torch import Tensor

from iota.codec.wire_dtype import payload_tensor
from iota.compute.commitment import commitment
from iota.compute.determinism import device_class
from iota.compute.devices import device_of
from iota.compute.engine import Engine, EngineFactory
from iota.compute.errors import BadValueError
from iota.compute.fingerprint import fingerprint
from iota.compute.names import Microbatch
from iota.compute.output import MAX_CHECK, DeviceOutput
from iota.compute.state import StageState
from iota.protocol.fingerprints import Fingerprint
from iota.protocol.receipts import MAX_LOSS, OpKind, Receipt
from iota.protocol.records import Word
from iota.settings import Activations
from iota.spec import RunSpec
from validator.audits.measured import MeasuredProfile
from validator.audits.tolerance import compare_norm, compare_output, compare_state, profile_for
from validator.core.jobs import OpInputs, ReplayOp, Shown
from validator.core.results import ReplayMismatch

_T = TypeVar("_T")
_THREADS = re.compile(r"/t(\d{1,4})/")
"""The thread count in a CPU's device class."""
_GROUPS = {"weights": "weights", "moments": "moments", "before": "weights of the version before"}
"""The groups of a commitment, in words."""


@dataclass(frozen=True)
class ReplayOptions:
    """The device and threads that this machine replays with."""

    device: str = "cpu"
    threads: int = 1
    max_threads: int = 1
    """Most threads that a replay may use to match a miner's device class."""
    make_engine: EngineFactory = Engine
    profiles: tuple[MeasuredProfile, ...] | None = None
    """Tolerances that were measured between device classes; None for those that are shipped."""

    def matching(self, theirs: str) -> ReplayOptions:
        """These options with the miner's thread count, if that makes the device classes equal.

        Whoever named its class truly then shows the bits of this machine.
        """
        match = _THREADS.search(theirs)
        threads = int(match[1]) if match else 0
        if 1 <= threads <= self.max_threads and device_class(self.device, threads) == theirs:
            return replace(self, threads=threads)
        return self


_MARGIN: Final = 2 - 2**-23
"""What a miner's device finds a little below the bound of bad values, a validator's of another class may find
above it, and neighbours that collude could choose such values. Results up to so many times the bound are
compared as others are, and words are false where the values are so many times below it."""


class OwnFingerprint:
    """This machine's fingerprint for the nonce that was asked for last: a miner's audits ask for one."""

    def __init__(self) -> None:
        self._asked: tuple[str, int] | None = None
        self._found: Fingerprint | None = None

    def equals(self, shown: Shown, spec: RunSpec, stage: int, options: ReplayOptions) -> bool:
        """Whether this machine's device, as torch is set now, gives the fingerprint that a miner showed."""
        if shown.fingerprint is None or not device_of(torch.device(options.device)).repeats:
            return False
        asked = (shown.nonce, options.threads)
        if self._asked != asked:
            self._found, self._asked = fingerprint(spec, stage, options.device, shown.nonce), asked
        return self._found == shown.fingerprint


class Replay:
    """One miner's stage on this machine, compared to the bit if the miner showed this machine's class."""

    def __init__(
        self, spec: RunSpec, stage: int, theirs: Shown, options: ReplayOptions, own: OwnFingerprint
    ) -> None:
        self.spec = spec
        named = options.matching(theirs.device)
        self._threads = named.threads
        self._first = 0
        """The version that was loaded."""
        same = self._on_thread(lambda: own.equals(theirs, spec, stage, named))
        mine = device_class(named.device, named.threads)
        self.profile = profile_for(spec, mine, theirs.device, options.profiles, shown=same)
        if not same:  # a name alone does not have this machine compute with one thread
            self._threads = options.threads
        self._engine = self._on_thread(
            lambda: options.make_engine(spec, stage, device=options.device, activations=Activations.AUTO)
        )

        margin = 1.0 if self.profile.exact else _MARGIN
        self._most, self._surely = MAX_CHECK * margin, MAX_CHECK / margin
        self._loss = MAX_LOSS / margin

    # ---- comparisons ---------------------------------------------------------------------------

    def op(self, job: ReplayOp) -> ReplayMismatch | None:
        """Run and compare an op; of a BACKWARD first its FORWARD, if that is given.

        A BACKWARD or LOSS adds its microbatch to the gradient of its step.
        """
        receipt, forward, version, inputs = job.receipt, job.forward, job.version, job.inputs
        mb = Microbatch(receipt.epoch, receipt.step, receipt.microbatch, receipt.attempt)
        stage_input = None if inputs.stage_input is None else payload_tensor(inputs.stage_input)
        engine, tokens = self._engine, inputs.tokens

        def run_forward() -> DeviceOutput:
            return engine.forward(mb, version, stage_input, tokens)

        def evaluate() -> DeviceOutput:
            return engine.evaluate(mb, version, stage_input, tokens)

        def run_backward() -> DeviceOutput:
            assert inputs.gradient is not None
            return engine.backward(mb, version, payload_tensor(inputs.gradient))

        def recompute_backward() -> DeviceOutput:
            engine.remember(mb, version, stage_input, tokens)
            return run_backward()

        if receipt.kind is OpKind.LOSS:
            return self._checked(receipt, job.sent, lambda: engine.loss(mb, version, stage_input, tokens))
        read, gradient = inputs.stage_input, inputs.gradient
        if self.spec.is_heldout(mb.index):
            return self._checked(receipt, job.sent, evaluate, read)
        if receipt.kind is OpKind.FORWARD:
            found = self._checked(receipt, job.sent, run_forward, read)
            engine.drop(mb)  # its graph would stay until the STEP
            return found
        if forward is None:
            return self._checked(receipt, job.sent, recompute_backward, gradient)
        mismatch = self._checked(forward, job.forward_sent, run_forward, read)
        return mismatch or self._checked(receipt, job.sent, run_backward, gradient)

    def is_finite(self, word: Word, version: int, inputs: OpInputs) -> bool:
        """Whether the ops of a word, as far as their inputs are there, give finite values on any device."""
        mb = Microbatch(word.epoch, word.step, word.microbatch, word.attempt)
        stage_input = None if inputs.stage_input is None else payload_tensor(inputs.stage_input)
        engine, surely = self._engine, self._surely

        def run() -> bool:
            try:
                heldout = self.spec.is_heldout(mb.index)
                if heldout or word.stage == self.spec.last_stage:
                    ends = engine.evaluate if heldout else engine.loss
                    loss = ends(mb, version, stage_input, inputs.tokens).read(surely).result().loss
                    return loss is None or loss <= self._loss
                engine.forward(mb, version, stage_input, inputs.tokens).read(surely).result()
                if inputs.gradient is not None:
                    engine.backward(mb, version, payload_tensor(inputs.gradient)).read(surely).result()
            except BadValueError:
                engine.discard(mb)
                return False
            return True

        return self._on_thread(run)

    def step(self, receipt: Receipt, count: int, learning_rate: float) -> ReplayMismatch | None:
        """Run and compare a STEP over the gradient of `count` microbatches that was summed."""

        def run() -> ReplayMismatch | None:
            made = self._engine.step(receipt.step, count, learning_rate).read().result()
            return compare_norm(self.profile, receipt, made.gradient_norm, self._depth(receipt.step))

        return self._found(receipt, run)

    def compare_roots(self, commit: Receipt) -> ReplayMismatch | None:
        """Compare the state that the replay came to with a COMMIT, to the bit."""

        def run() -> ReplayMismatch | None:
            found = commitment(self._engine.state(copy=False), self.spec.outer.part_elements)
            said = commit.commitment
            assert said is not None
            what = next((name for name in _GROUPS if getattr(found, name) != getattr(said, name)), None)
            if what is None:
                return None
            expected, theirs = getattr(found, what), getattr(said, what)
            reason = f"the {_GROUPS[what]} of version {commit.version} are others than its STEPs make"
            return ReplayMismatch(commit.seq, expected, theirs, reason)

        return self._on_thread(run)

    def compare_state(self, commit: Receipt, start: StageState, theirs: StageState) -> ReplayMismatch | None:
        """Compare the state that the replay came to from `start` with the miner's, by the profile."""

        def run() -> ReplayMismatch | None:
            mine = self._engine.state(copy=False)
            return compare_state(self.profile, commit.seq, start, theirs, mine, commit.version - self._first)

        return self._on_thread(run)

    def weights(self) -> dict[str, Tensor]:
        """The newest weights on the CPU, which may share the replay's memory."""
        return self._on_thread(lambda: self._engine.state(copy=False).weights)

    def _checked(
        self,
        receipt: Receipt,
        sent: bytes | None,
        run: Callable[[], DeviceOutput],
        given: bytes | None = None,
    ) -> ReplayMismatch | None:
        depth = self._depth(receipt.version)

        def compared() -> ReplayMismatch | None:
            return compare_output(self.profile, receipt, run().read(self._most).result(), sent, depth, given)

        return self._found(receipt, compared)

    def _depth(self, version: int) -> int:
        """Of an op that used a weight version. The one before the loaded version was given too."""
        return max(1, version - self._first + 1)

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
        self._first = version
        self._on_thread(lambda: self._engine.load(state, version=version))
