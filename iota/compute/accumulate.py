"""Gradient accumulation of one open step, in fp32 or in bf16 with stochastic rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from iota.compute.errors import BadValueError
from iota.compute.finite import all_finite
from iota.compute.gradient_sum import GradientSum, sum_rounding
from iota.compute.names import Microbatch
from iota.compute.scalar_of import scalar_of


class OpenStep:
    """The summed gradient of a step that has not run STEP yet.

    Two open steps may use the same weight version (steps 0 and 1 in `delayed`). Each has its own autograd
    leaves, which share the version's memory, and its own sums. Leaves may be bf16.
    """

    def __init__(self, version: int, weights: Mapping[str, Tensor], *, rounded_by: int | None = None) -> None:
        """`rounded_by` is the seed of a run whose sums are bf16; None: they are fp32."""
        self.version = version
        self.leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
        self._seed = rounded_by
        self._sums = GradientSum()
        self.summed: list[Microbatch] = []
        for name, leaf in self.leaves.items():
            leaf.register_post_accumulate_grad_hook(_adder(self._sums, name))  # type: ignore[no-untyped-call]

    @property
    def sums(self) -> dict[str, Tensor]:
        """The sums, in the order of the leaves since a norm's rounding depends on it. Empty at first."""
        found = self._sums.tensors
        return {name: found[name] for name in self.leaves} if found else {}

    def backward(self, output: Tensor, gradient: Tensor | None, entry: Tensor, mb: Microbatch) -> Tensor:
        """Add one microbatch's gradient to the sums. Returns the gradient at `entry` in fp32, of its shape.

        `gradient` is the one at `output`, or None if `output` is the loss. Each parameter's gradient is added
        and freed as soon as it is computed, so a backward needs no second gradient of the whole stage.

        Raises BadValueError for NaN or Inf. The sums then hold a part of it, so all of them are discarded:
        `summed` is empty, and the caller must repeat its microbatches.
        """
        entry.retain_grad()
        self._sums.rounding = None if self._seed is None else sum_rounding(self._seed, mb, len(self.summed))
        loss = output if gradient is None else scalar_of(output, gradient)
        torch.autograd.backward(loss)
        assert entry.grad is not None
        if not all_finite(entry.grad, *self._sums.tensors.values()):
            self.clear()
            raise BadValueError(f"NaN or Inf in the gradient of microbatch {mb.index} of step {mb.step}")
        self.summed.append(mb)
        return entry.grad.float()

    def clear(self) -> None:
        """Discard the sums; the leaves stay."""
        self._sums.tensors.clear()
        self.summed = []


def _adder(sums: GradientSum, name: str) -> Callable[[Tensor], None]:
    """A hook that moves a leaf's gradient to `sums`.

    It must not hold the OpenStep, whose leaves hold the hook: the cycle would keep the sums of applied steps
    in memory until a garbage collection.
    """

    def add(leaf: Tensor) -> None:
        gradient, leaf.grad = leaf.grad, None
        assert gradient is not None
        sums.add(name, gradient)

    return add
