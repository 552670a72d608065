"""Gradient accumulation of one open step, in fp32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iota.compute.errors import BadValueError
from iota.compute.finite import all_finite
from iota.compute.names import Microbatch


class OpenStep:
    """The summed gradient of a step that has not run STEP yet.

    Two open steps may use the same weight version (steps 0 and 1 in `delayed`). Each has its own autograd
    leaves, which share the version's memory, and its own sums.
    """

    def __init__(self, version: int, weights: Mapping[str, Tensor]) -> None:
        self.version = version
        self.leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
        self.sums: dict[str, Tensor] = {}
        self.summed: list[Microbatch] = []

    def backward(self, output: Tensor, gradient: Tensor | None, entry: Tensor, mb: Microbatch) -> Tensor:
        """Add one microbatch's gradient to the sums. Returns the gradient at `entry` in fp32, of its shape.

        `gradient` is the one at `output`, or None if `output` is the loss. All gradients are computed and
        checked before any is added. Raises BadValueError for NaN or Inf; the sums are then unchanged.
        """
        wanted = [entry, *self.leaves.values()]
        at_entry, *gradients = torch.autograd.grad(output, wanted, gradient)
        if not all_finite(at_entry, *gradients):
            raise BadValueError(f"NaN or Inf in the gradient of microbatch {mb.index} of step {mb.step}")
        self._add(gradients)
        self.summed.append(mb)
        return at_entry.float()

    def clear(self) -> None:
        """Discard the sums; the leaves stay."""
        self.sums = {}
        self.summed = []

    def _add(self, gradients: Sequence[Tensor]) -> None:
        if not self.sums:
            self.sums = {name: g.contiguous() for name, g in zip(self.leaves, gradients, strict=True)}
            return
        for total, gradient in zip(self.sums.values(), gradients, strict=True):
            total.add_(gradient)
