"""AdamW and SGD of torch, with fp32 moments as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from iota.compute.gradient_scale import Scale, is_one, scaled
from iota.compute.rounding import Rounding
from iota.model.moment_layout import moment_kinds
from iota.model.updates import weight_decay
from iota.spec import OptimizerKind, OptimizerSpec


class TorchUpdates:
    """Updates of named parameters by torch's optimizers."""

    def __init__(
        self, spec: OptimizerSpec, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]
    ) -> None:
        """`moments` are all of the stage: what torch reads and writes."""
        self._spec = spec
        # `.data` has its own autograd version counter. Otherwise an update of a later weight version would
        # count as a change of the first one, which graphs still need.
        self._parameters = {name: nn.Parameter(w.data, requires_grad=False) for name, w in weights.items()}
        self._optimizers = self._build()
        for optimizer, name, parameter in self._owned():
            kinds = moment_kinds(spec, name, parameter.dim())
            optimizer.state[parameter] = {kind: moments[f"{kind}.{name}"] for kind in kinds}

    def update(
        self,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        scale: Scale,
        learning_rate: float,
        rounding: Rounding | None,
    ) -> None:
        """Update `weights`, fp32 or bf16, in place. Gradients, fp32 or bf16, are taken times `scale`."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        narrow = (t.dtype is torch.bfloat16 for n in self._parameters for t in (weights[n], gradients[n]))
        if any(narrow) or not is_one(scale):
            self._update_each(weights, gradients, scale, rounding)
        else:
            self._update_all(weights, gradients)

    def _update_all(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            # Torch keys its state by parameter, and each weight version may have other memory.
            parameter.data = weights[name]
            parameter.grad = gradients[name]
        for optimizer in self._optimizers:
            optimizer.step()
        for parameter in self._parameters.values():
            parameter.grad = None

    def _update_each(
        self,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        scale: Scale,
        rounding: Rounding | None,
    ) -> None:
        """One parameter after another, of which alone there are fp32 copies: the others have no gradient."""
        for optimizer, name, parameter in self._owned():
            weight = weights[name]
            parameter.data = weight.float()
            parameter.grad = scaled(gradients[name], scale)
            optimizer.step()
            if weight.dtype is torch.bfloat16:
                assert rounding is not None
                rounding.write(name, parameter.data, weight)
            parameter.data, parameter.grad = weight, None

    def _owned(self) -> list[tuple[torch.optim.Optimizer, str, nn.Parameter]]:
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        return [
            (optimizer, names[id(parameter)], parameter)
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def _build(self) -> list[torch.optim.Optimizer]:
        spec, groups = self._spec, _groups(list(self._parameters.values()), self._spec)
        if not groups:
            return []
        if spec.kind is OptimizerKind.SGD:
            return [torch.optim.SGD(groups, lr=spec.lr, foreach=False)]
        return [torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, fused=True)]


def _groups(parameters: list[nn.Parameter], spec: OptimizerSpec) -> list[dict[str, object]]:
    """Parameter groups: matrices and vectors, whose weight decays differ."""
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = ((matrices, weight_decay(spec, 2)), (vectors, weight_decay(spec, 1)))
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]
