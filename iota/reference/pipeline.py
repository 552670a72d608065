"""The numerical reference: a whole run in one process. Tests compare a pipeline's results with it.

All stages run in one autograd graph, with the wire's rounding between them. Modules, optimizers and
clipping are those of the engine; payloads, weight versions and the engine itself are not used.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iota.compute.clip import largest_of, mean_and_clip
from iota.compute.gradient_sum import GradientSum, sum_rounding, sums_seed
from iota.compute.names import Microbatch
from iota.compute.optim import InnerOptimizer
from iota.compute.precision import autocast, operand_dtypes
from iota.compute.rounding import Rounding, rounding_of
from iota.compute.state import StageState
from iota.compute.tokens import Tokens, token_tensors
from iota.model.initial import initial_weights
from iota.model.loss import token_loss
from iota.model.stage import Stage, run_stage
from iota.model.updates import clip_threshold
from iota.outer import open_delta_codec
from iota.outer.error_feedback import encode_part
from iota.outer.nesterov import OuterState, outer_step
from iota.outer.partition import Vector, split
from iota.outer.pseudo_gradient import flatten, pseudo_gradient, unflatten
from iota.reference.wire_round import wire_round
from iota.spec import Pipeline, RunSpec, StateRule

Batches = Callable[[int, int, int], Tokens]
"""(epoch, step, index) -> tokens of that microbatch."""

_CPU = torch.device("cpu")
_Weights = list[dict[str, Tensor]]


class ReferenceTrainer:
    """Trains the run `spec` with one replica of each stage, on the CPU.

    It starts from `states`, one for each stage, or from the initial weights.
    """

    def __init__(self, spec: RunSpec, states: list[StageState] | None = None) -> None:
        self.spec = spec
        stages = range(spec.layout.stages)
        self._bases = _bases(spec, states)
        if states is None:
            states = [StageState.initial(spec, stage) for stage in stages]
        self._modules = [Stage(spec, stage) for stage in stages]
        self._weights: _Weights = [
            {name: w.clone() for name, w in sorted(state.weights.items())} for state in states
        ]
        self._optimizers = [InnerOptimizer(spec.optimizer, weights) for weights in self._weights]
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load(state.moments)
        self._thresholds = [clip_threshold(spec, stage) for stage in stages]
        self._dtypes = [_widened(spec, stage) for stage in stages]
        self._feedback: list[dict[int, Vector | None]] = [{} for _ in stages]
        """By stage: what is not sent yet of each partition."""

    def run_epoch(self, epoch: int, batches: Batches) -> list[list[float]]:
        """Run the epoch's steps and the outer step. Returns each step's losses, in order of microbatch."""
        start = _copy(self._weights)
        if epoch > 0 and self.spec.optimizer.state is StateRule.RESET:
            self.reset_moments()
        losses = self.run_steps(epoch, batches)
        for stage, weights in enumerate(self._weights):
            merged = self.sent(stage, pseudo_gradient(start[stage], weights).numpy())
            outer, mu = self.spec.outer, self.spec.outer.momentum_at(epoch)
            self._bases[stage] = after = outer_step(self._bases[stage], merged, outer.eta, mu)
            self.set_weights(stage, after.weights)
        return losses

    def set_weights(self, stage: int, weights_N: Vector) -> None:
        """Go on from these weights, rounded to the nearest where those of the run are bf16."""
        own = self._weights[stage]
        for name, value in unflatten(torch.from_numpy(weights_N), own).items():
            own[name].copy_(value)

    def reset_moments(self) -> None:
        """Go on with moments of zero."""
        for optimizer in self._optimizers:
            optimizer.reset()

    def forget_unsent(self) -> None:
        """Go on without error feedback."""
        for kept in self._feedback:
            kept.clear()

    def sent(self, stage: int, change_N: Vector) -> Vector:
        """What arrives of a stage's pseudo-gradient; the rest is added to the next epoch's."""
        outer, kept, arrived = self.spec.outer, self._feedback[stage], []
        for number, part in enumerate(split(change_N, outer.part_elements)):
            data, kept[number] = encode_part(outer, part, kept.get(number))
            arrived.append(open_delta_codec(outer.codec).decode(data, part.size))
        return np.concatenate(arrived)

    def run_steps(self, epoch: int, batches: Batches) -> list[list[float]]:
        """Run the inner steps of an epoch without the outer step. Returns as `run_epoch`."""
        delayed = self.spec.schedule.pipeline is Pipeline.DELAYED
        previous = _copy(self._weights)
        losses: list[list[float]] = []
        for step in range(self.spec.schedule.steps):
            used = previous if delayed else self._weights
            gradients, step_losses = self._gradients(used, epoch, step, batches)
            previous = _copy(self._weights) if delayed else self._weights
            rate = self.spec.learning_rate(epoch, step)
            for stage, sums in enumerate(gradients):
                count, largest = self.spec.schedule.microbatches, largest_of(sums.values())
                mean = mean_and_clip(sums, count, self._thresholds[stage], largest)
                rounding = rounding_of(self.spec, epoch, step)
                self._optimizers[stage].update(self._weights[stage], sums, rate, rounding, mean.scale)
            losses.append(step_losses)
        return losses

    def bases(self) -> list[OuterState]:
        """The newest base of each stage, in fp32."""
        return list(self._bases)

    def states(self) -> list[StageState]:
        """Copies of the weights and moments of each stage."""
        return [
            StageState(dict(copy), {name: m.clone() for name, m in optimizer.moments().items()})
            for copy, optimizer in zip(_copy(self._weights), self._optimizers, strict=True)
        ]

    def logits(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V) of the current weights for token ids (B, T), with the wire's rounding."""
        with torch.no_grad():
            return F.linear(self._forward(self._weights, ids_BT), self._weights[-1]["head.weight"])

    def _gradients(
        self, weights: _Weights, epoch: int, step: int, batches: Batches
    ) -> tuple[_Weights, list[float]]:
        leaves = [
            {name: w.detach().to(dtypes.get(name, w.dtype)).requires_grad_() for name, w in stage.items()}
            for stage, dtypes in zip(weights, self._dtypes, strict=True)
        ]
        flat = list(chain.from_iterable(stage.values() for stage in leaves))
        sums = [GradientSum() for _ in leaves]
        losses: list[float] = []
        for index in range(self.spec.schedule.microbatches):
            ids, labels = token_tensors(self.spec, batches(epoch, step, index), _CPU)
            with autocast(self.spec.precision, _CPU):
                loss = token_loss(self._forward(leaves, ids), leaves[-1]["head.weight"], labels)
            gradients = iter(torch.autograd.grad(loss, flat))
            rounding = self._sum_rounding(Microbatch(epoch, step, index))
            for stage, total in zip(leaves, sums, strict=True):
                total.rounding = rounding
                for name in stage:
                    total.add(name, next(gradients))
            losses.append(float(loss.detach()))
        return [total.tensors for total in sums], losses

    def _sum_rounding(self, mb: Microbatch) -> Rounding | None:
        seed = sums_seed(self.spec)
        return None if seed is None else sum_rounding(seed, mb, mb.index)

    def _forward(self, weights: _Weights, ids_BT: Tensor) -> Tensor:
        """What the last stage's head multiplies, (B, T, D)."""
        out: Tensor | None = None
        for module, own in zip(self._modules, weights, strict=True):
            received = None if out is None else wire_round(out, self.spec.boundary.wire)
            out = run_stage(module, own, received, ids_BT).out
        assert out is not None
        return out


def _bases(spec: RunSpec, states: list[StageState] | None) -> list[OuterState]:
    """The base of epoch 0 of each stage: the initial weights before any rounding, or the states' weights."""
    stages = range(spec.layout.stages)
    given = (
        [initial_weights(spec, stage) for stage in stages] if states is None else [s.weights for s in states]
    )
    vectors = [flatten(weights).numpy() for weights in given]
    return [OuterState(vector, np.zeros_like(vector)) for vector in vectors]


def _widened(spec: RunSpec, stage: int) -> dict[str, torch.dtype]:
    """Of `operand_dtypes` those that autocast does not give: the fp32 ones among bf16 weights."""
    return {name: to for name, to in operand_dtypes(spec, stage).items() if to is torch.float32}


def _copy(weights: _Weights) -> _Weights:
    return [{name: w.clone() for name, w in stage.items()} for stage in weights]
