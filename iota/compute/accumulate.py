"""The gradient of one open step: its own leaves on a version's weights, and an fp32 sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iota.compute.errors import BadValueError
from iota.compute.finite import all_finite
from iota.compute.names import Microbatch


class OpenStep:
    """A step that microbatches are still added to.

    Two open steps may use one weight version (`delayed`, steps 0 and 1); each has leaves of its own
    that share the version's memory, and sums apart.
    """

    def __init__(self, version: int, weights: Mapping[str, Tensor]) -> None:
        self.version = version
        self.leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
        self.sums: dict[str, Tensor] = {}
        self.summed: list[Microbatch] = []

    def backward(self, output: Tensor, gradient: Tensor | None, entry: Tensor, mb: Microbatch) -> Tensor:
        """Add one microbatch's gradient; returns the gradient at `entry`, in fp32.

        The whole gradient is made before any of it is added, so that a bad value leaves the sum as it
        was. Raises BadValueError.
        """
        wanted = [entry, *self.leaves.values()]
        at_entry, *gradients = torch.autograd.grad(output, wanted, gradient)
        if not all_finite(at_entry, *gradients):
            raise BadValueError(f"NaN or Inf in the gradient of microbatch {mb.index} of step {mb.step}")
        self._add(gradients)
        self.summed.append(mb)
        return at_entry.float()

    def clear(self) -> None:
        self.sums = {}
        self.summed = []

    def _add(self, gradients: Sequence[Tensor]) -> None:
        if not self.sums:
            self.sums = {
                name: gradient if gradient.is_contiguous() else gradient.contiguous()
                for name, gradient in zip(self.leaves, gradients, strict=True)
            }
            return
        for total, gradient in zip(self.sums.values(), gradients, strict=True):
            total.add_(gradient)
