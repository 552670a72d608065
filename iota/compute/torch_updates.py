"""AdamW and SGD by torch's functions, with fp32 moments as named tensors.

Its classes import torch._dynamo and sympy when the first one is made: a second, and 70 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from iota.compute.gradient_scale import Scale, is_one, scaled
from iota.compute.rounding import Rounding
from iota.model.updates import weight_decay
from iota.spec import OptimizerKind, OptimizerSpec


class TorchUpdates:
    """Updates of named parameters by torch."""

    def __init__(
        self, spec: OptimizerSpec, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]
    ) -> None:
        """`moments` are all of the stage: what this one reads and writes."""
        self._spec, self._moments = spec, moments
        matrices = [name for name, w in weights.items() if w.dim() >= 2]
        vectors = [name for name, w in weights.items() if w.dim() < 2]
        self._groups = ((matrices, weight_decay(spec, 2)), (vectors, weight_decay(spec, 1)))

    @torch.no_grad()
    def update(
        self,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        scale: Scale,
        learning_rate: float,
        rounding: Rounding | None,
    ) -> None:
        """Update `weights`, fp32 or bf16, in place. Gradients, fp32 or bf16, are taken times `scale`."""
        for names, decay in self._groups:
            narrow = any(t.dtype is torch.bfloat16 for n in names for t in (weights[n], gradients[n]))
            if not narrow and is_one(scale):
                # `.data` has its own autograd version counter. Otherwise an update of a later weight version
                # would count as a change of the first one, which graphs still need.
                self._apply(names, [weights[n].data for n in names], gradients, learning_rate, decay)
                continue
            for name in names:  # one after another, of which alone there are fp32 copies
                weight = weights[name].data
                values = weight.float()
                self._apply([name], [values], {name: scaled(gradients[name], scale)}, learning_rate, decay)
                if weight.dtype is torch.bfloat16:
                    assert rounding is not None
                    rounding.write(name, values, weight)

    def _apply(
        self,
        names: Sequence[str],
        values: list[Tensor],
        gradients: Mapping[str, Tensor],
        learning_rate: float,
        decay: float,
    ) -> None:
        if not names:
            return
        spec, given = self._spec, [gradients[name] for name in names]
        if spec.kind is OptimizerKind.SGD:
            sgd(
                values, given, [None] * len(values), foreach=False, lr=learning_rate, weight_decay=decay,
                momentum=0.0, dampening=0.0, nesterov=False, maximize=False,
            )  # fmt: skip
            return
        first, second, steps = (
            [self._moments[f"{kind}.{name}"] for name in names] for kind in ("exp_avg", "exp_avg_sq", "step")
        )
        adamw(
            values, given, first, second, [], steps, fused=True, lr=learning_rate, weight_decay=decay,
            beta1=spec.betas[0], beta2=spec.betas[1], eps=spec.eps, amsgrad=False, maximize=False,
        )  # fmt: skip
