"""Sums of gradients, by parameter: fp32, or bf16 that is rounded stochastically with each addition."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from iota.compute.names import Microbatch
from iota.compute.rounding import Rounding, pieces
from iota.spec import GradientSums, RunSpec


@dataclass
class GradientSum:
    """The sum of some microbatches' gradients."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    """By parameter; empty before the first."""
    rounding: Rounding | None = None
    """Of the microbatch that is being added; None: sums are fp32."""

    def add(self, name: str, gradient: Tensor) -> None:
        """Add a parameter's gradient, fp32 or bf16, which the caller gives up."""
        total = self.tensors.get(name)
        if self.rounding is None:
            if total is None:
                self.tensors[name] = gradient.float().contiguous()
            else:
                total.add_(gradient)
            return
        if total is None:
            total = self.tensors[name] = torch.zeros_like(
                gradient, dtype=torch.bfloat16, memory_format=torch.contiguous_format
            )
        total_N, gradient_N = total.view(-1), gradient.reshape(-1)
        for piece in pieces(total_N.numel(), total_N.device):
            exact_N = total_N[piece].float().add_(gradient_N[piece])
            self.rounding.write_piece(name, piece, exact_N, total_N[piece])


def sum_rounding(seed: int, mb: Microbatch, position: int) -> Rounding:
    """The roundings of a microbatch that is added at `position` in the order of addition."""
    return Rounding(seed, mb.epoch, mb.step, purpose=f"sums/{position}")


def sums_seed(spec: RunSpec) -> int | None:
    """The seed of a run whose sums of gradients are bf16; None where they are fp32."""
    return spec.seed if spec.optimizer.gradient_sums is GradientSums.BF16 else None
