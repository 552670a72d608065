"""The engine: FORWARD, LOSS, BACKWARD, EVAL and STEP of one replica on one device.

Callers start one op at a time. A result depends only on the op's name, its inputs and the order of the
backwards in its step, which the caller decides. Payloads are tensors on both sides; `DeviceOutput.read`
copies a result to the host.

No op waits for the device, so none knows of NaN and Inf: `result` of the copy raises BadValueError, and the
caller then calls `discard`. Ops of other microbatches may start in between: their results are what they are
without the bad one, but for the step's sum, of which `summed` says that it must be made again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from iota.codec.wire_dtype import encode_wire
from iota.compute.accumulate import OpenStep
from iota.compute.clip import mean_and_clip
from iota.compute.compiled import is_compiled
from iota.compute.devices import check_dtypes, device_of
from iota.compute.errors import CountError, MicrobatchError, VersionError
from iota.compute.finite import checksum
from iota.compute.host_copy import HostCopy, start_copy
from iota.compute.memory import choose
from iota.compute.names import Microbatch
from iota.compute.optim import InnerOptimizer
from iota.compute.output import DeviceOutput, DeviceStep
from iota.compute.precision import operand_dtypes
from iota.compute.rounding import rounding_of
from iota.compute.stage_pass import Graph, StagePass
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.compute.versions import Versions
from iota.console.counts import counted
from iota.model.updates import clip_threshold
from iota.planning import stage_needs
from iota.settings import Activations
from iota.spec import Pipeline, RunSpec, StateRule, WireDtype

UNSENT_EVERY: Final = 64
"""Nobody receives stage 0's gradient. Its digest is of unrounded sums over so many tokens each: the values
themselves would be 0.3 GB a microbatch at d = 9,216 and 8,000 tokens, to copy and to hash."""


@dataclass
class _InFlight:
    """A microbatch between its forward and its backward: its graph, or, if it was re-routed, its inputs."""

    version: int
    stage_input: Tensor | None
    tokens: Tokens
    graph: Graph | None = None


class Engine:
    """Stage `stage` of a run on `device`. Ops raise VersionError before the first `load`."""

    def __init__(
        self,
        spec: RunSpec,
        stage: int,
        *,
        device: str | torch.device = "cpu",
        activations: Activations = Activations.KEEP,
    ) -> None:
        self.spec, self.stage = spec, stage
        self.device = torch.device(device)
        self.activations = activations
        check_dtypes(spec, self.device)
        device_of(self.device).make_deterministic()
        self._pass = StagePass(spec, stage, self.device)
        self._dtypes = operand_dtypes(spec, stage)
        self._threshold = clip_threshold(spec, stage)
        self._needs = stage_needs(spec, stage, compiled=is_compiled(self.device))
        self._versions: Versions | None = None
        self._optimizer: InnerOptimizer | None = None
        self._steps: dict[int, OpenStep] = {}
        self._in_flight: dict[Microbatch, _InFlight] = {}
        self._copying: HostCopy | None = None
        """The newest copy of a state: STEP changes no tensor that it still reads."""

    # ---- state --------------------------------------------------------------------------------

    def load(self, state: StageState, *, version: int) -> None:
        """Start from a copy of `state` as weight version `version`: a base or a snapshot.

        A base is version 0, or the step at which the replica joins. Open steps and microbatches are
        discarded. Empty moments mean zeros. Weights of the version before are held for the next step.
        """
        self._steps.clear()
        self._in_flight.clear()
        self._versions, self._optimizer = None, None  # first, because memory may not suffice for both
        self._versions = Versions(state.weights, version, self.device, self._dtypes, before=state.before)
        self._optimizer = InnerOptimizer(self.spec.optimizer, self._versions.weights)
        self._optimizer.load(state.moments)

    def rebase(self, weights: dict[str, Tensor]) -> None:
        """Start an epoch from merged weights, in the run's weight dtype.

        The spec decides whether moments are carried over or zero.
        """
        carry = self.spec.optimizer.state is StateRule.CARRY
        moments = {n: m.clone() for n, m in self._loaded_optimizer().moments().items()} if carry else {}
        self.load(StageState(weights, moments), version=0)

    def state(self, *, copy: bool = True) -> StageState:
        """The newest weights and moments on the CPU, with the weights of the version before if it is held.

        Without `copy` they may share the engine's memory, and are valid until the next op.
        """
        return StageState(*map(partial(_on_cpu, copy=copy), self._groups()))

    def copy_state(self) -> HostCopy:
        """Start copying `state()` to the host. Later ops do not change the copy."""
        self._copying = start_copy(*self._groups())
        return self._copying

    @property
    def newest(self) -> int:
        """The newest weight version."""
        return self._loaded_versions().newest

    @property
    def versions(self) -> tuple[int, ...]:
        """The weight versions in memory, ascending."""
        return self._loaded_versions().held

    # ---- ops ----------------------------------------------------------------------------------

    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        """FORWARD: the payload for the next stage. The last stage has LOSS instead.

        Args:
            version: the weight version that the step uses.
            stage_input: payload on any device, None at stage 0. It must not change before the backward.
            tokens: (sequences, sequence_length + 1).

        Raises:
            MicrobatchError: at the last stage.
            PayloadError, VersionError: the microbatch is then not in flight.
        """
        if self._pass.last:
            raise MicrobatchError("the last stage runs LOSS, not FORWARD")
        self._in_flight.pop(mb, None)
        graph, checks = self._run_graph(mb, _InFlight(version, stage_input, tokens))
        self._in_flight[mb] = _InFlight(version, None, tokens, graph)
        checks["the output"] = checksum(graph.out)
        return self._output(mb, graph.out, self.spec.boundary.wire, checks, sent=True)

    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        """LOSS: forward and backward at the last stage. Gives the loss and the previous stage's gradient.

        Arguments and errors are those of `forward`.
        """
        if not self._pass.last:
            raise MicrobatchError("only the last stage runs LOSS")
        self._refuse_repeated(mb)
        graph, checks = self._run_graph(mb, _InFlight(version, stage_input, tokens))
        checks["the loss"] = checksum(graph.out)
        return replace(self._backward(mb, graph, None, checks), loss=graph.out.detach())

    def evaluate(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        """The op of a held-out microbatch: FORWARD, and EVAL at the last stage. Nothing of it is kept.

        An EVAL sends nothing. What is digested are the nats of each token, fp32, (sequences,
        sequence_length); the loss is their mean in float64. Arguments and errors are those of `forward`.
        """
        inputs = self._pass.inputs(stage_input, tokens)
        weights = self._open(mb.step, version).leaves
        if self._pass.last:
            result = self._pass.token_losses(weights, inputs)
        else:
            result = self._pass.forward(weights, inputs)
        checks = {**inputs.checks, "the output": checksum(result)}
        if not self._pass.last:
            return self._output(mb, result, self.spec.boundary.wire, checks, sent=True)
        made = self._output(mb, result, WireDtype.FP32, checks, sent=False)
        return replace(made, loss=device_of(self.device).exact_mean(result))

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        """BACKWARD: adds to the step's gradient, and gives the previous stage's gradient.

        `gradient` is the next stage's payload, on any device. At stage 0 the result has no payload.

        Raises:
            MicrobatchError: there was no forward or `remember`, or the microbatch was added already.
            VersionError: the forward used another version.
            PayloadError: the payload has the wrong size.
        """
        self._refuse_repeated(mb)
        flying = self._in_flight.get(mb)
        if flying is None:
            raise MicrobatchError(f"microbatch {mb.index}.{mb.attempt} of step {mb.step} has no forward here")
        if flying.version != version:
            raise VersionError(f"forward in version {flying.version}, backward in {version}")
        arrived = self._pass.received(gradient)
        checks = {"the received gradient": checksum(arrived)}
        if (graph := flying.graph) is None:
            graph, own = self._run_graph(mb, flying)
            checks |= own
        del self._in_flight[mb]
        flying.graph = None
        return self._backward(mb, graph, arrived, checks)

    def remember(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> None:
        """Keep the inputs of a re-routed microbatch, from which `backward` recomputes its graph.

        Arguments are those of `forward`. Raises VersionError.
        """
        self._open(mb.step, version)
        self._in_flight[mb] = _InFlight(version, stage_input, tokens)

    def drop(self, mb: Microbatch) -> None:
        """Discard a microbatch in flight. Gradients stay as they are."""
        self._in_flight.pop(mb, None)

    def discard(self, mb: Microbatch) -> None:
        """Undo an op whose result raised BadValueError: its microbatch is not in flight.

        If the step's gradient has it, all of the gradient is discarded, also what was added since. The caller
        compares `summed` with what it counts, and repeats what is missing.
        """
        self.drop(mb)
        if mb in self.summed(mb.step):
            self.clear_gradient(mb.step)

    def summed(self, step: int) -> list[Microbatch]:
        """The microbatches in the step's gradient, in the order of addition."""
        return list(self._steps[step].summed) if step in self._steps else []

    def clear_gradient(self, step: int) -> None:
        """Set the step's gradient to zero, so that its backwards can be repeated."""
        if step in self._steps:
            self._steps[step].clear()

    def step(self, step: int, count: int, learning_rate: float) -> DeviceStep:
        """STEP: v_{t+1} = inner_update(v_t, clip(sum / count)). Count 0 leaves weights and moments unchanged.

        The result of the step's last backward should have been read: if not, this waits for it. After an
        error the step is still open.

        Raises:
            CountError: the gradient has another number of microbatches.
            VersionError: v_t is not the newest version.
            BadValueError: the gradient has NaN or Inf.
        """
        held, inner = self._loaded_versions(), self._loaded_optimizer()
        if held.newest != step:
            raise VersionError(f"STEP {step} needs weight version {step}, the newest is {held.newest}")
        opened = self._steps.get(step)
        if count != (len(opened.summed) if opened else 0):
            raise CountError(
                f"STEP {step} counts {counted(count, 'microbatch')}, the gradient holds {self.summed(step)}"
            )
        norm = torch.zeros(())
        if opened and count:
            norm = mean_and_clip(opened.sums, count, self._threshold, opened.bound)
        self._steps.pop(step, None)
        self._in_flight = {mb: kept for mb, kept in self._in_flight.items() if mb.step > step}
        later = self.spec.weight_version(step + 1) == step
        keep = later or any(opened.version == step for opened in self._steps.values())
        self._await_copy()
        weights = held.advance(keep=keep, changed=count > 0)
        if opened and count:
            rounding = rounding_of(self.spec, opened.summed[0].epoch, step)
            inner.update(weights, opened.sums, learning_rate, rounding)
        self._release_unused(step)
        return DeviceStep(held.newest, norm)

    # ---- the parts of ops ------------------------------------------------------------------------

    def _run_graph(self, mb: Microbatch, flying: _InFlight) -> tuple[Graph, dict[str, Tensor]]:
        """The graph, and the checks of what it was made from."""
        inputs = self._pass.inputs(flying.stage_input, flying.tokens)
        opened = self._open(mb.step, flying.version)
        return self._pass.graph(opened.leaves, inputs, self._policy()), inputs.checks

    def _backward(
        self, mb: Microbatch, graph: Graph, gradient: Tensor | None, checks: dict[str, Tensor]
    ) -> DeviceOutput:
        at_entry, check = self._steps[mb.step].backward(graph.out, gradient, graph.entry, mb)
        checks = {**checks, "the gradient": check}
        if not self._pass.first:
            return self._output(mb, at_entry, self.spec.boundary.wire, checks, sent=True)
        return self._output(mb, _sums(at_entry), WireDtype.FP32, checks, sent=False)

    def _output(
        self, mb: Microbatch, x_BTK: Tensor, wire: WireDtype, checks: dict[str, Tensor], *, sent: bool
    ) -> DeviceOutput:
        return DeviceOutput(mb, encode_wire(x_BTK, wire), sent, self.spec.data.tokens, checks)

    def _open(self, step: int, version: int) -> OpenStep:
        held = self._loaded_versions()
        if step < held.newest:
            raise VersionError(f"step {step} is closed: the newest weights are version {held.newest}")
        opened = self._steps.get(step)
        if opened is None:
            opened = self._steps[step] = OpenStep(version, held.operands(version))
        if opened.version != version:
            raise VersionError(f"step {step} uses weight version {opened.version}, not {version}")
        return opened

    def _refuse_repeated(self, mb: Microbatch) -> None:
        if mb.step in self._steps and mb in self._steps[mb.step].summed:
            raise MicrobatchError(f"microbatch {mb.index}.{mb.attempt} of step {mb.step} is counted already")

    def _release_unused(self, step: int) -> None:
        needed = {opened.version for opened in self._steps.values()}
        for version in self._loaded_versions().held:
            if version < step and version not in needed:
                self._loaded_versions().release(version)

    def _policy(self) -> Activations:
        """The policy of a pass that is about to run."""
        if self.activations is not Activations.AUTO:
            return self.activations
        more = max(1, self._needs.graphs - len(self._in_flight))
        return choose(self.device, self._needs.kept, graphs=more, besides=self._state_to_come())

    def _state_to_come(self) -> int:
        """Bytes that versions and gradient sums will need besides those in memory."""
        held, summed = self._loaded_versions().held, sum(bool(o.summed) for o in self._steps.values())
        versions = 2 if self.spec.schedule.pipeline is Pipeline.DELAYED else 1
        needs = self._needs
        return sum(
            whole * max(0, versions - there) // versions
            for whole, there in ((needs.weights, len(held)), (needs.gradients, summed))
        )

    def _groups(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Weights, moments, and the weights of the version before or none, on the device."""
        held = self._loaded_versions()
        before = held.get(held.newest - 1) if held.newest - 1 in held.held else {}
        return held.weights, self._loaded_optimizer().moments(), before

    def _await_copy(self) -> None:
        if self._copying is not None:
            self._copying.hold_back_writes(self.device)
            self._copying = None

    def _loaded_versions(self) -> Versions:
        if self._versions is None:
            raise VersionError("no state is loaded: call load first")
        return self._versions

    def _loaded_optimizer(self) -> InnerOptimizer:
        if self._optimizer is None:
            raise VersionError("no state is loaded: call load first")
        return self._optimizer


def _sums(x_BTD: Tensor) -> Tensor:
    """Sums over each `UNSENT_EVERY` tokens of a sequence."""
    batch, tokens, width = x_BTD.shape
    padded = F.pad(x_BTD, (0, 0, 0, -tokens % UNSENT_EVERY))
    return padded.reshape(batch, -1, UNSENT_EVERY, width).sum(2)


def _on_cpu(tensors: dict[str, Tensor], *, copy: bool) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=copy) for name, tensor in tensors.items()}


class EngineFactory(Protocol):
    """Constructor of an engine: `Engine`, or a substitute in tests."""

    def __call__(
        self, spec: RunSpec, stage: int, *, device: str | torch.device, activations: Activations
    ) -> Engine: ...
