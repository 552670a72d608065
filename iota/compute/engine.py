"""One replica's compute: FORWARD, LOSS, BACKWARD and STEP on one device.

The engine does what it is told, op by op, from one thread. A result depends on the op's name, its
inputs and the order of the backwards of its step, and on nothing else; the order is the caller's.
Payloads go in and come out as tensors; `DeviceOutput.read` brings a result to the host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from iota.codec.wire_dtype import encode_wire, round_wire
from iota.compute.accumulate import OpenStep
from iota.compute.clip import clip_threshold, mean_and_clip
from iota.compute.determinism import make_deterministic
from iota.compute.errors import BadValueError, CountError, MicrobatchError, VersionError
from iota.compute.finite import all_finite
from iota.compute.memory import has_room
from iota.compute.names import Microbatch, StepOutput
from iota.compute.optim import InnerOptimizer
from iota.compute.output import DeviceOutput
from iota.compute.sketch import SketchKey, finish, project
from iota.compute.stage_pass import Graph, StagePass
from iota.compute.state import StageState, tensors_digest
from iota.compute.tokens import Tokens
from iota.compute.versions import Versions
from iota.model.layout import graph_bytes
from iota.protocol.receipts import OpKind
from iota.settings import Recompute
from iota.spec import ComputeDtype, RunSpec, StateRule, WireDtype


@dataclass
class _InFlight:
    """A microbatch between its forward and its backward: its graph, or what to recompute it from."""

    version: int
    stage_input: Tensor | None
    tokens: Tokens
    graph: Graph | None = None


class Engine:
    """Stage `stage` of a run on `device`. Nothing can run before `load`."""

    def __init__(
        self,
        spec: RunSpec,
        stage: int,
        *,
        device: str | torch.device = "cpu",
        recompute: Recompute = Recompute.NEVER,
    ) -> None:
        self.spec, self.stage = spec, stage
        self.device = torch.device(device)
        self.recompute = recompute
        make_deterministic(self.device)
        self._pass = StagePass(spec, stage, self.device)
        self._threshold = clip_threshold(spec, stage)
        self._run = spec.id
        width = 2 if spec.compute is ComputeDtype.BF16 else 4
        self._graph_bytes = graph_bytes(spec.model, spec.layout.cuts, stage, spec.data.tokens, width)
        self._versions: Versions | None = None
        self._optimizer: InnerOptimizer | None = None
        self._steps: dict[int, OpenStep] = {}
        self._flying: dict[Microbatch, _InFlight] = {}

    # ---- state --------------------------------------------------------------------------------

    def load(self, state: StageState, *, version: int) -> None:
        """Start from `state` as weight version `version`: a base (0, or the join step) or a snapshot.

        Forgets all steps and microbatches. The tensors are copied; empty moments mean zero.
        """
        self._steps.clear()
        self._flying.clear()
        self._versions, self._optimizer = None, None  # before the copy: both would not fit at once
        self._versions = Versions(state.weights, version, self.device)
        self._optimizer = InnerOptimizer(self.spec.optimizer, self._versions.weights)
        self._optimizer.load(state.moments)

    def rebase(self, weights: dict[str, Tensor], *, version: int = 0) -> None:
        """Start an epoch from merged weights; moments stay or go as the run's `optimizer_state` says."""
        carry = self.spec.optimizer.state is StateRule.CARRY
        moments = {n: m.clone() for n, m in self._inner().moments().items()} if carry else {}
        self.load(StageState(weights, moments), version=version)

    def state(self, *, copy: bool = True) -> StageState:
        """The newest weights and moments on the CPU.

        Without `copy` they may be the engine's own memory: to be read before the next op, and not kept.
        """
        return StageState(
            weights={n: w.detach().to("cpu", copy=copy) for n, w in self._held().weights.items()},
            moments={n: m.detach().to("cpu", copy=copy) for n, m in self._inner().moments().items()},
        )

    @property
    def newest(self) -> int:
        """The newest weight version."""
        return self._held().newest

    @property
    def versions(self) -> tuple[int, ...]:
        return self._held().held

    def adopt(self, state: StageState, *, version: int) -> None:
        """Take `state` as the next version in place of a STEP: how a replay reaches a snapshot.

        Open steps and the version that they use stay, so that in `delayed` a step's gradient at v_{t-1}
        can be applied to a snapshot of v_t. Raises VersionError unless `version` comes next.
        """
        held = self._held()
        if version != held.newest + 1:
            raise VersionError(f"version {version} does not follow {held.newest}")
        weights = held.advance(keep=True, changed=True)
        for name, tensor in weights.items():
            tensor.copy_(state.weights[name])
        self._inner().load(state.moments)

    def release(self, version: int) -> None:
        """Give an older version's memory back. STEP already releases what no later step uses."""
        if any(step.version == version for step in self._steps.values()):
            raise VersionError(f"weight version {version} is in use by an open step")
        self._held().release(version)

    # ---- ops ----------------------------------------------------------------------------------

    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        """FORWARD of any stage but the last: the encoded boundary tensor for the next one.

        `tokens` is (sequences, sequence_length + 1); `stage_input`, a payload on any device, is None at
        stage 0 only, and must not change while the microbatch is in flight. Raises PayloadError,
        VersionError or BadValueError; the microbatch is then not in flight.
        """
        if self._pass.last:
            raise MicrobatchError("the last stage runs LOSS, not FORWARD")
        self._flying.pop(mb, None)
        flying = _InFlight(version, stage_input, tokens)
        keep = self._keeps_graph()
        graph = self._run_graph(mb, flying, keep=keep)
        if not all_finite(graph.out):
            raise BadValueError(f"NaN or Inf in the output of microbatch {mb.index} of step {mb.step}")
        if keep:
            flying = _InFlight(version, None, tokens, graph)
        self._flying[mb] = flying
        return self._output(graph.out, self.spec.boundary.wire, mb, OpKind.FORWARD, sent=True)

    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        """LOSS: forward and backward at the last stage; the gradient for the stage before.

        Raises as `forward` does; nothing is then accumulated.
        """
        if not self._pass.last:
            raise MicrobatchError("only the last stage runs LOSS")
        self._refuse_summed(mb)
        graph = self._run_graph(mb, _InFlight(version, stage_input, tokens), keep=True)
        if not all_finite(graph.out):
            raise BadValueError(f"the loss of microbatch {mb.index} of step {mb.step} is not finite")
        return replace(self._backward(mb, graph, None, OpKind.LOSS), loss=graph.out.detach())

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        """BACKWARD: adds to the step's gradient and gives the one for the stage before.

        `gradient` is a payload on any device; at stage 0 the result has none.

        Raises:
            MicrobatchError: there was no forward (or `remember`), or it was counted already.
            BadValueError: NaN or Inf; nothing is accumulated.
        """
        self._refuse_summed(mb)
        flying = self._flying.get(mb)
        if flying is None:
            raise MicrobatchError(f"microbatch {mb.index}.{mb.attempt} of step {mb.step} has no forward here")
        if flying.version != version:
            raise VersionError(f"forward in version {flying.version}, backward in {version}")
        arrived = self._pass.received(gradient)
        graph = flying.graph or self._run_graph(mb, flying, keep=True)
        # the graph dies with its backward whatever comes of it
        del self._flying[mb]
        flying.graph = None
        return self._backward(mb, graph, arrived, OpKind.BACKWARD)

    def remember(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> None:
        """Keep a re-routed microbatch's stage input, so that `backward` can recompute it."""
        self._open(mb.step, version)
        self._flying[mb] = _InFlight(version, stage_input, tokens)

    def drop(self, mb: Microbatch) -> None:
        """Forget a microbatch in flight; what it added to a gradient stays."""
        self._flying.pop(mb, None)

    def summed(self, step: int) -> list[Microbatch]:
        """Whose backwards are in the step's gradient, in the order of addition."""
        return list(self._steps[step].summed) if step in self._steps else []

    def clear_gradient(self, step: int) -> None:
        """Empty the step's gradient, to be accumulated again by replay."""
        if step in self._steps:
            self._steps[step].clear()

    def step(self, step: int, count: int, learning_rate: float, *, epoch: int) -> StepOutput:
        """STEP: v_{t+1} = inner_update(v_t, clip(sum / count)); with count 0 weights and moments stay.

        `epoch` enters the sketches' signs only. Raises CountError where the gradient holds another number
        of microbatches, VersionError unless v_t is the newest, BadValueError for a gradient whose norm is
        not finite; the step is then still open.
        """
        held, inner = self._held(), self._inner()
        if held.newest != step:
            raise VersionError(f"STEP {step} needs weight version {step}, the newest is {held.newest}")
        opened = self._steps.get(step)
        if count != (len(opened.summed) if opened else 0):
            raise CountError(
                f"STEP {step} counts {count} microbatches, the gradient holds {self.summed(step)}"
            )
        norm = mean_and_clip(opened.sums, count, self._threshold) if opened and count else 0.0
        self._steps.pop(step, None)
        self._flying = {mb: kept for mb, kept in self._flying.items() if mb.step > step}
        change_key = self._key("change", epoch, step, 0)
        before = project(held.weights, change_key)
        later = self.spec.weight_version(step + 1) == step
        keep = later or any(opened.version == step for opened in self._steps.values())
        weights = held.advance(keep=keep, changed=count > 0)
        if opened and count:
            inner.update(weights, opened.sums, learning_rate)
        self._release_unused(step)
        change = project(weights, change_key) - before
        moments = inner.moments()
        values = {name: m for name, m in moments.items() if not name.startswith("step.")}
        moments_key = self._key("moments", epoch, step, 0)
        return StepOutput(
            version=held.newest,
            gradient_norm=norm,
            weights=tensors_digest(weights),
            moments=tensors_digest(moments),
            change_sketch=finish(change, sum(w.numel() for w in weights.values())),
            moments_sketch=finish(project(values, moments_key), sum(m.numel() for m in values.values())),
        )

    # ---- the parts of ops ------------------------------------------------------------------------

    def _run_graph(self, mb: Microbatch, flying: _InFlight, *, keep: bool) -> Graph:
        inputs = self._pass.inputs(flying.stage_input, flying.tokens)
        opened = self._open(mb.step, flying.version)
        return self._pass.run(opened.leaves, inputs, keep=keep)

    def _backward(self, mb: Microbatch, graph: Graph, gradient: Tensor | None, kind: OpKind) -> DeviceOutput:
        at_entry = self._steps[mb.step].backward(graph.out, gradient, graph.entry, mb)
        sent = not self._pass.first
        # nobody receives stage 0's gradient: its digest is of the exact values
        return self._output(
            at_entry, self.spec.boundary.wire if sent else WireDtype.FP32, mb, kind, sent=sent
        )

    def _output(
        self, x_BTK: Tensor, wire: WireDtype, mb: Microbatch, kind: OpKind, *, sent: bool
    ) -> DeviceOutput:
        # the sketch is of what is sent, so that a receiver can make it from the payload
        rounded = round_wire(x_BTK.detach(), wire)
        key = self._key(kind.value, mb.epoch, mb.step, mb.index)
        return DeviceOutput(
            hashed_N=encode_wire(x_BTK, wire),
            sent=sent,
            projection_J=project({"": rounded}, key),
            elements=rounded.numel(),
            tokens=self.spec.data.tokens,
        )

    def _open(self, step: int, version: int) -> OpenStep:
        held = self._held()
        if step < held.newest:
            raise VersionError(f"step {step} is closed: the newest weights are version {held.newest}")
        opened = self._steps.get(step)
        if opened is None:
            opened = self._steps[step] = OpenStep(version, held.get(version))
        if opened.version != version:
            raise VersionError(f"step {step} uses weight version {opened.version}, not {version}")
        return opened

    def _refuse_summed(self, mb: Microbatch) -> None:
        if mb.step in self._steps and mb in self._steps[mb.step].summed:
            raise MicrobatchError(f"microbatch {mb.index}.{mb.attempt} of step {mb.step} is counted already")

    def _release_unused(self, step: int) -> None:
        needed = {opened.version for opened in self._steps.values()}
        for version in self._held().held:
            if version < step and version not in needed:
                self._held().release(version)

    def _keeps_graph(self) -> bool:
        if self.recompute is Recompute.AUTO:
            return has_room(self.device, self._graph_bytes)
        return self.recompute is Recompute.NEVER

    def _key(self, kind: str, epoch: int, step: int, index: int) -> SketchKey:
        return SketchKey(self._run, self.stage, kind, epoch, step, index)

    def _held(self) -> Versions:
        if self._versions is None:
            raise VersionError("no state is loaded: call load first")
        return self._versions

    def _inner(self) -> InnerOptimizer:
        if self._optimizer is None:
            raise VersionError("no state is loaded: call load first")
        return self._optimizer


class EngineFactory(Protocol):
    """Makes engines: `Engine` itself, or one that a test puts in its place."""

    def __call__(
        self, spec: RunSpec, stage: int, *, device: str | torch.device, recompute: Recompute
    ) -> Engine: ...
