"""Inner optimizers: AdamW and SGD of torch, AdamW with rounded moments and Muon of our own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from iota.compute.gradient_scale import Scale
from iota.compute.moments import make_moments
from iota.compute.muon import Muon
from iota.compute.rounded_adamw import RoundedAdamW
from iota.compute.rounding import Rounding
from iota.compute.torch_updates import TorchUpdates
from iota.model.moment_layout import moment_forms
from iota.model.updates import muon_scale, uses_muon, weight_decay
from iota.spec import Moments, OptimizerKind, OptimizerSpec


class InnerOptimizer:
    """Updates weights in place, and owns the moments (`iota.model.moment_layout`)."""

    def __init__(self, spec: OptimizerSpec, weights: Mapping[str, Tensor]) -> None:
        self._spec = spec
        shapes = {name: tuple(w.shape) for name, w in weights.items()}
        device = next(iter(weights.values())).device
        self._moments = make_moments(moment_forms(spec, shapes), device)
        muon = {name: w for name, w in weights.items() if uses_muon(spec, name, w.dim())}
        rest = {name: w for name, w in weights.items() if name not in muon}
        self._muon = Muon(spec.muon_momentum, muon, self._moments)
        self._torch: TorchUpdates | None = None
        self._rounded: RoundedAdamW | None = None
        if spec.moments is Moments.FP32 or spec.kind is OptimizerKind.SGD:
            self._torch = TorchUpdates(spec, rest, self._moments)
        else:
            self._rounded = RoundedAdamW(spec, list(rest), self._moments)

    def update(
        self,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        learning_rate: float,
        rounding: Rounding | None = None,
        scale: Scale = 1.0,
    ) -> None:
        """Update `weights` in place. Both mappings have the names and shapes given at construction.

        Args:
            gradients: fp32 or bf16; they stay as they are.
            rounding: rounds new weights that are bf16, and new moments that are not fp32; None: all are fp32.
            scale: what the gradients are to be multiplied by.
        """
        if self._torch is not None:
            self._torch.update(weights, gradients, scale, learning_rate, rounding)
        if self._rounded is not None:
            assert rounding is not None
            self._rounded.update(weights, gradients, scale, learning_rate, rounding)
        keep = 1 - learning_rate * weight_decay(self._spec, 2)
        for directions in self._muon.directions(gradients, scale, rounding):
            for name, direction in directions.items():
                rate = learning_rate * muon_scale(*direction.shape)
                self._write(name, weights[name].data, direction, keep, rate, rounding)

    @staticmethod
    def _write(
        name: str, weight: Tensor, direction: Tensor, keep: float, rate: float, rounding: Rounding | None
    ) -> None:
        """weight <- keep weight - rate direction."""
        if weight.dtype is torch.float32:
            weight.mul_(keep).add_(direction, alpha=-rate)
        else:
            assert rounding is not None
            rounding.write(name, weight.float().mul_(keep).add_(direction, alpha=-rate), weight)

    def reset(self) -> None:
        """Set moments and step counts to zero."""
        for moment in self._moments.values():
            moment.zero_()

    def moments(self) -> dict[str, Tensor]:
        """The moments, sorted by name. They change with the next update unless the caller copies them."""
        return dict(self._moments)

    def load(self, moments: Mapping[str, Tensor]) -> None:
        """Copy `moments`; an empty mapping means zeros. Raises ValueError if names or dtypes are others."""
        self.reset()
        if not moments:
            return
        own = self._moments
        if own.keys() != moments.keys() or any(own[n].dtype != moments[n].dtype for n in own):
            raise ValueError("moments of another optimizer or stage: load the state of this one")
        for name, tensor in own.items():
            tensor.copy_(moments[name])
