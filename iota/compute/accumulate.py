"""Gradient accumulation of one open step, in fp32 or in bf16 with stochastic rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from iota.compute.clip import largest_of, magnitude
from iota.compute.errors import BadValueError
from iota.compute.finite import checksum
from iota.compute.gradient_sum import GradientSum, sum_rounding
from iota.compute.names import Microbatch
from iota.compute.output import ReadBack
from iota.compute.scalar_of import scalar_of

MAX_ADDED: Final = 2**20
"""So many times a microbatch's largest value is at most `MAX_CHECK`: then no sum of fewer overflows, and
whether a microbatch is bad does not depend on those before it."""
ROUNDED_UP: Final = 1 + 2**-7
"""How many times larger a value becomes at the most that is rounded to bf16."""


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
        self._largest: list[Tensor] = []
        """The largest magnitude in each gradient of the backward that runs."""
        self._bound: Tensor | None = None
        self._reading: ReadBack[float] | None = None
        self.summed: list[Microbatch] = []
        for name, leaf in self.leaves.items():
            leaf.register_post_accumulate_grad_hook(_adder(self._sums, self._largest, name))  # type: ignore[no-untyped-call]

    @property
    def sums(self) -> dict[str, Tensor]:
        """The sums, in the order of the leaves since a norm's rounding depends on it. Empty at first."""
        found = self._sums.tensors
        return {name: found[name] for name in self.leaves} if found else {}

    @property
    def bound(self) -> float:
        """No value of a sum has a larger magnitude. Complete as soon as the last backward's results are.

        The bound of sums that are rounded grows exponentially, and can overflow where they do not (1,157
        microbatches near `MAX_ADDED`): then they are looked at. Raises BadValueError if it is not finite.
        """
        found = self._reading.result() if self._reading is not None else 0.0
        if found == math.inf:
            found = largest_of(self.sums.values())
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
            The gradient at `entry` in fp32, of its shape, and a scalar that is above `MAX_CHECK` or NaN where
            this microbatch's gradient is bad. The caller must then `clear` the sums, and repeat what was in
            them.
        """
        entry.retain_grad()
        self._sums.rounding = None if self._seed is None else sum_rounding(self._seed, mb, len(self.summed))
        loss = output if gradient is None else scalar_of(output, gradient)
        torch.autograd.backward(loss)
        assert entry.grad is not None
        largest = torch.stack(self._largest).amax()
        self._largest.clear()
        self._bound = largest if self._bound is None else self._bound + largest
        if self._seed is not None:
            self._bound = self._bound * ROUNDED_UP
        self._reading = ReadBack([self._bound], lambda host: float(host[0]))
        self.summed.append(mb)
        at_entry = entry.grad.float()
        return at_entry, torch.stack([MAX_ADDED * largest, checksum(at_entry)]).abs().amax()

    def clear(self) -> None:
        """Discard the sums; the leaves stay."""
        self._sums.tensors.clear()
        self._bound = self._reading = None
        self.summed = []


def _adder(sums: GradientSum, largest: list[Tensor], name: str) -> Callable[[Tensor], None]:
    """A hook that moves a leaf's gradient to `sums`, and notes its largest magnitude.

    It must not hold the OpenStep, whose leaves hold the hook: the cycle would keep the sums of applied steps
    in memory until a garbage collection.
    """

    def add(leaf: Tensor) -> None:
        gradient, leaf.grad = leaf.grad, None
        assert gradient is not None
        largest.append(magnitude(gradient))
        sums.add(name, gradient)

    return add
