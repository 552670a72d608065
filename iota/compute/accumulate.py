"""Gradient accumulation of one open step, in fp32."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from iota.compute.clip import magnitude
from iota.compute.errors import BadValueError
from iota.compute.finite import checksum
from iota.compute.names import Microbatch
from iota.compute.output import ReadBack

MAX_ADDED: Final = 2**20
"""A microbatch's gradient must stay finite if it is multiplied by this: then no sum of fewer overflows, and
whether a microbatch is bad does not depend on those before it."""


class OpenStep:
    """The summed gradient of a step that has not run STEP yet.

    Two open steps may use the same weight version (steps 0 and 1 in `delayed`). Each has its own autograd
    leaves, which share the version's memory, and its own sums. Leaves may be bf16; sums are fp32.
    """

    def __init__(self, version: int, weights: Mapping[str, Tensor]) -> None:
        self.version = version
        self.leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
        self._sums: dict[str, Tensor] = {}
        self._largest: list[Tensor] = []
        """The largest magnitude in each gradient of the backward that runs."""
        self._bound: Tensor | None = None
        self._reading: ReadBack[float] | None = None
        self.summed: list[Microbatch] = []
        for name, leaf in self.leaves.items():
            leaf.register_post_accumulate_grad_hook(_adder(self._sums, self._largest, name))  # type: ignore[no-untyped-call]

    @property
    def sums(self) -> dict[str, Tensor]:
        """The fp32 sums, in the order of the leaves since a norm's rounding depends on it. Empty at first."""
        return {name: self._sums[name] for name in self.leaves} if self._sums else {}

    @property
    def bound(self) -> float:
        """No value of a sum has a larger magnitude. Complete as soon as the last backward's results are.

        Raises BadValueError if it is not finite.
        """
        found = self._reading.result() if self._reading is not None else 0.0
        if not math.isfinite(found):
            raise BadValueError(f"NaN or Inf in the gradient of step {self.summed[-1].step}")
        return found

    def backward(
        self, output: Tensor, gradient: Tensor | None, entry: Tensor, mb: Microbatch
    ) -> tuple[Tensor, Tensor]:
        """Add one microbatch's gradient to the sums.

        `gradient` is the one at `output`, or None if `output` is the loss. Each parameter's gradient is added
        and freed as soon as it is computed, so a backward needs no second gradient of the whole stage.

        Returns:
            The gradient at `entry` in fp32, of its shape, and a scalar that is not finite where this
            microbatch's gradient is bad. The caller must then `clear` the sums, and repeat what was in them.
        """
        entry.retain_grad()
        torch.autograd.backward(output, gradient)
        assert entry.grad is not None
        largest = torch.stack(self._largest).amax()
        self._largest.clear()
        self._bound = largest if self._bound is None else self._bound + largest
        self._reading = ReadBack([self._bound], lambda host: float(host[0]))
        self.summed.append(mb)
        at_entry = entry.grad.float()
        return at_entry, torch.stack([MAX_ADDED * largest, checksum(at_entry)]).abs().amax()

    def clear(self) -> None:
        """Discard the sums; the leaves stay."""
        self._sums.clear()
        self._bound = self._reading = None
        self.summed = []


def _adder(sums: dict[str, Tensor], largest: list[Tensor], name: str) -> Callable[[Tensor], None]:
    """A hook that moves a leaf's gradient to `sums`, and notes its largest magnitude.

    It must not hold the OpenStep, whose leaves hold the hook: the cycle would keep the sums of applied steps
    in memory until a garbage collection.
    """

    def add(leaf: Tensor) -> None:
        gradient, leaf.grad = leaf.grad, None
        assert gradient is not None
        largest.append(magnitude(gradient))
        if name in sums:
            sums[name].add_(gradient)
        else:
            sums[name] = gradient.float().contiguous()

    return add
