"""Inner optimizers: torch's own AdamW, Muon and SGD, with their state as flat named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from iota.codec.shapes import Shapes
from iota.spec import OptimizerKind, OptimizerSpec

_ADAM = ("exp_avg", "exp_avg_sq", "step")
_MUON = ("momentum_buffer",)


def uses_muon(spec: OptimizerSpec, name: str, dimensions: int) -> bool:
    """Hidden matrices do; embeddings, head, anchors, norms and biases stay with AdamW."""
    if spec.kind is not OptimizerKind.MUON or dimensions != 2:
        return False
    return name.startswith(("layers.", "boundary.")) and ".anchor." not in name


def moment_shapes(spec: OptimizerSpec, weights: Shapes) -> Shapes:
    """Names and shapes of the moments that go with these weights, sorted; step counts are scalars."""
    shapes: Shapes = {}
    for name, shape in weights.items():
        for kind in _kinds(spec, name, len(shape)):
            shapes[f"{kind}.{name}"] = () if kind == "step" else shape
    return dict(sorted(shapes.items()))


class InnerOptimizer:
    """Updates weights in place from gradients; holds the moments."""

    def __init__(self, spec: OptimizerSpec, weights: Mapping[str, Tensor]) -> None:
        self._spec = spec
        # `.data` has a change counter of its own: an update of a later version, made through the
        # parameter, must not look to autograd like a change of the first one
        self._parameters = {name: nn.Parameter(w.data, requires_grad=False) for name, w in weights.items()}
        self._optimizers = self._build()
        self.reset()

    def update(
        self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], learning_rate: float
    ) -> None:
        """One step, in place on `weights` (all of the names given at construction)."""
        for name, parameter in self._parameters.items():
            # versions live in changing buffers, torch keys its state by parameter: point it there
            parameter.data = weights[name]
            parameter.grad = gradients[name]
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        for parameter in self._parameters.values():
            parameter.grad = None

    def reset(self) -> None:
        """Moments and step counts to zero."""
        for optimizer, name, parameter in self._owned():
            kinds = _kinds(self._spec, name, parameter.dim())
            optimizer.state[parameter] = {kind: _zero(kind, parameter) for kind in kinds}

    def moments(self) -> dict[str, Tensor]:
        """The live moments by name, sorted; the caller copies what it means to keep."""
        found = {
            f"{kind}.{name}": optimizer.state[parameter][kind]
            for optimizer, name, parameter in self._owned()
            for kind in _kinds(self._spec, name, parameter.dim())
        }
        return dict(sorted(found.items()))

    def load(self, moments: Mapping[str, Tensor]) -> None:
        """Copy moments in; none at all means zero. Raises ValueError for a set of other names."""
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
        spec = self._spec
        muon = [p for n, p in self._parameters.items() if uses_muon(spec, n, p.dim())]
        rest = [p for n, p in self._parameters.items() if not uses_muon(spec, n, p.dim())]
        if spec.kind is OptimizerKind.SGD:
            return [torch.optim.SGD(_groups(rest, spec), lr=spec.lr, foreach=False)]
        optimizers: list[torch.optim.Optimizer] = []
        if muon:
            optimizers.append(
                torch.optim.Muon(
                    muon,
                    lr=spec.lr,
                    weight_decay=spec.weight_decay,
                    momentum=spec.muon_momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if rest:
            optimizers.append(
                torch.optim.AdamW(_groups(rest, spec), lr=spec.lr, betas=spec.betas, eps=spec.eps, fused=True)
            )
        return optimizers


def _groups(parameters: list[nn.Parameter], spec: OptimizerSpec) -> list[dict[str, object]]:
    """Matrices decay, gains and biases do not."""
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = ((matrices, spec.weight_decay), (vectors, 0.0))
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]


def _kinds(spec: OptimizerSpec, name: str, dimensions: int) -> tuple[str, ...]:
    if spec.kind is OptimizerKind.SGD:
        return ()
    return _MUON if uses_muon(spec, name, dimensions) else _ADAM


def _zero(kind: str, parameter: Tensor) -> Tensor:
    if kind == "step":
        return torch.zeros((), dtype=torch.float32, device=parameter.device)
    return torch.zeros_like(parameter)
