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
from iota.compute.optim import InnerOptimizer
from iota.compute.precision import autocast, operand_dtypes
from iota.compute.rounding import rounding_of
from iota.compute.state import StageState
from iota.compute.tokens import Tokens, token_tensors
from iota.model.initial import initial_weights
from iota.model.loss import token_loss
from iota.model.stage import Stage, run_stage
from iota.model.updates import clip_threshold
from iota.outer.nesterov import OuterState, outer_step
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

    def run_epoch(self, epoch: int, batches: Batches) -> list[list[float]]:
        """Run the epoch's steps and the outer step. Returns each step's losses, in order of microbatch."""
        start = _copy(self._weights)
        if epoch > 0 and self.spec.optimizer.state is StateRule.RESET:
            for optimizer in self._optimizers:
                optimizer.reset()
        losses = self.run_steps(epoch, batches)
        for stage, weights in enumerate(self._weights):
            merged = pseudo_gradient(start[stage], weights).numpy()
            outer, mu = self.spec.outer, self.spec.outer.momentum_at(epoch)
            self._bases[stage] = after = outer_step(self._bases[stage], merged, outer.eta, mu)
            for name, value in unflatten(torch.from_numpy(after.weights), weights).items():
                weights[name].copy_(value)  # rounded to the nearest where the weights are bf16
        return losses

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
                mean_and_clip(sums, count, self._thresholds[stage], largest)
                rounding = rounding_of(self.spec, epoch, step)
                self._optimizers[stage].update(self._weights[stage], sums, rate, rounding)
            losses.append(step_losses)
        return losses

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
        totals: list[Tensor] = []
        losses: list[float] = []
        for index in range(self.spec.schedule.microbatches):
            ids, labels = token_tensors(self.spec, batches(epoch, step, index), _CPU)
            with autocast(self.spec.precision, _CPU):
                loss = token_loss(self._forward(leaves, ids), leaves[-1]["head.weight"], labels)
            gradients = [gradient.float() for gradient in torch.autograd.grad(loss, flat)]
            totals = [total + g for total, g in zip(totals, gradients, strict=True)] if totals else gradients
            losses.append(float(loss.detach()))
        remaining = iter(totals)
        return [{name: next(remaining) for name in stage} for stage in leaves], losses

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
