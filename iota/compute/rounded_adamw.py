"""AdamW whose moments are kept in fewer bits than it computes with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from iota.compute.gradient_scale import Scale, scaled
from iota.compute.moments import Moment, open_moment
from iota.compute.rounding import Rounding, pieces
from iota.model.updates import largest_ratio, weight_decay
from iota.spec import OptimizerSpec


@dataclass(frozen=True)
class _Parameter:
    first: Moment
    second: Moment
    step: Tensor


class RoundedAdamW:
    """AdamW of named parameters (Loshchilov & Hutter 2019), a piece of one of them at a time.

        m <- round(b1 m + (1 - b1) g)    v <- round(b2 v + (1 - b2) g²)
        w <- (1 - r d) w - r clamp(m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps))

    The update is made from the rounded moments, and clamped to what unrounded ones can give at the most
    (`iota.model.updates.largest_ratio`). The memory that it takes does not depend on a parameter's size.
    """

    def __init__(self, spec: OptimizerSpec, names: list[str], moments: Mapping[str, Tensor]) -> None:
        """`moments` are all of the stage: what this one reads and writes."""
        self._spec, self._most = spec, largest_ratio(spec)
        self._parameters = {
            name: _Parameter(
                open_moment(moments, f"exp_avg.{name}"),
                open_moment(moments, f"exp_avg_sq.{name}"),
                moments[f"step.{name}"],
            )
            for name in names
        }

    @torch.no_grad()
    def update(
        self,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        scale: Scale,
        learning_rate: float,
        rounding: Rounding,
    ) -> None:
        """Update `weights`, fp32 or bf16, in place. Gradients, fp32 or bf16, are taken times `scale`."""
        one, two = self._spec.betas
        for name, own in self._parameters.items():
            weight_N, gradient_N = weights[name].view(-1), gradients[name].view(-1)
            own.step.add_(1)
            keep = 1 - learning_rate * weight_decay(self._spec, weights[name].dim())
            first, second = _corrections(own.step, one), _corrections(own.step, two)
            for piece in pieces(weight_N.numel(), weight_N.device):
                ratio_N = self._ratio(own, piece, scaled(gradient_N[piece], scale), first, second, rounding)
                values_N = weight_N[piece].float().mul(keep).sub_(ratio_N, alpha=learning_rate)
                if weight_N.dtype is torch.bfloat16:
                    rounding.write_piece(name, piece, values_N, weight_N[piece])
                else:
                    weight_N[piece] = values_N

    def _ratio(
        self, own: _Parameter, piece: slice, g_N: Tensor, first: Tensor, second: Tensor, rounding: Rounding
    ) -> Tensor:
        """The update of a piece at rate 1, from its new moments."""
        one, two = self._spec.betas
        m_N = own.first.write(piece, own.first.read(piece).lerp_(g_N, 1 - one), rounding)
        v_N = own.second.read(piece).mul_(two).addcmul_(g_N, g_N, value=1 - two)
        v_N = own.second.write(piece, v_N, rounding)
        below_N = (v_N / second).sqrt_().add_(self._spec.eps)
        return (m_N / first).div_(below_N).clamp_(-self._most, self._most)


def _corrections(step: Tensor, beta: float) -> Tensor:
    """1 - beta^step, on the device, so that nothing waits for it."""
    return -torch.expm1(step * (math.log(beta) if beta > 0 else -math.inf))
