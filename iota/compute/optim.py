"""Inner optimizers: AdamW and SGD of torch and Muon of our own, with their state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from iota.compute.muon import Muon
from iota.compute.rounding import Rounding
from iota.model.updates import moment_kinds, muon_scale, uses_muon, weight_decay
from iota.spec import OptimizerKind, OptimizerSpec


class InnerOptimizer:
    """Updates weights in place, and owns the moments, which are fp32."""

    def __init__(self, spec: OptimizerSpec, weights: Mapping[str, Tensor]) -> None:
        self._spec = spec
        # `.data` has its own autograd version counter. Otherwise an update of a later weight version would
        # count as a change of the first one, which graphs still need.
        muon = {name: w for name, w in weights.items() if uses_muon(spec, name, w.dim())}
        self._muon = Muon(spec.muon_momentum, muon)
        self._parameters = {
            name: nn.Parameter(w.data, requires_grad=False) for name, w in weights.items() if name not in muon
        }
        self._optimizers = self._build()
        self.reset()

    def update(
        self,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        learning_rate: float,
        rounding: Rounding | None = None,
    ) -> None:
        """Update `weights` in place. Both mappings have the names and shapes given at construction.

        `rounding` rounds the new weights where they are bf16; None: they are fp32.
        """
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        if rounding is None:
            self._update_all(weights, gradients)
        else:
            self._update_each(weights, gradients, rounding)
        keep = 1 - learning_rate * weight_decay(self._spec, 2)
        for directions in self._muon.directions(gradients):
            for name, direction in directions.items():
                values = weights[name].data if rounding is None else weights[name].float()
                _write(values, direction, keep, learning_rate * muon_scale(*direction.shape))
                if rounding is not None:
                    rounding.write(name, values, weights[name])

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
        self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rounding: Rounding
    ) -> None:
        """One parameter after another, of which alone there is an fp32 copy: the others have no gradient."""
        for optimizer, name, parameter in self._owned():
            parameter.data = weights[name].float()
            parameter.grad = gradients[name]
            optimizer.step()
            rounding.write(name, parameter.data, weights[name])
            parameter.data, parameter.grad = weights[name], None

    def reset(self) -> None:
        """Set moments and step counts to zero."""
        for optimizer, name, parameter in self._owned():
            kinds = moment_kinds(self._spec, name, parameter.dim())
            optimizer.state[parameter] = {kind: _zero(kind, parameter) for kind in kinds}
        self._muon.reset()

    def moments(self) -> dict[str, Tensor]:
        """The moments, sorted by name. They change with the next update unless the caller copies them."""
        found = {
            f"{kind}.{name}": optimizer.state[parameter][kind]
            for optimizer, name, parameter in self._owned()
            for kind in moment_kinds(self._spec, name, parameter.dim())
        }
        found |= {f"momentum_buffer.{name}": momentum for name, momentum in self._muon.momenta.items()}
        return dict(sorted(found.items()))

    def load(self, moments: Mapping[str, Tensor]) -> None:
        """Copy `moments`; an empty mapping means zeros. Raises ValueError if the names are others."""
        self.reset()
        if not moments:
            return
        own = self.moments()
        if own.keys() != moments.keys():
            raise ValueError("moments of another optimizer or stage: load the state of this one")
        for name, tensor in own.items():
            tensor.copy_(moments[name])

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


def _write(weight: Tensor, direction: Tensor, keep: float, rate: float) -> None:
    """weight <- keep weight - rate direction."""
    weight.mul_(keep).add_(direction, alpha=-rate)


def _groups(parameters: list[nn.Parameter], spec: OptimizerSpec) -> list[dict[str, object]]:
    """Parameter groups: matrices and vectors, whose weight decays differ."""
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = ((matrices, weight_decay(spec, 2)), (vectors, weight_decay(spec, 1)))
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]


def _zero(kind: str, parameter: Tensor) -> Tensor:
    if kind == "step":
        return torch.zeros((), dtype=torch.float32, device=parameter.device)
    return torch.zeros_like(parameter, dtype=torch.float32)
