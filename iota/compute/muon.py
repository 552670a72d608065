"""Muon (Jordan et al. 2024): momentum, orthogonalised. Matrices of one shape are taken together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from iota.compute.devices import device_of
from iota.compute.polar import polar, polar_bytes

_BATCH_BYTES: Final = 1 << 30
"""Memory that one batch may take, where no cache says less. A larger matrix is a batch of its own."""


class Muon:
    """The momenta of named matrices, and the updates that they make. It has no weights."""

    def __init__(self, momentum: float, weights: Mapping[str, Tensor]) -> None:
        self._momentum = momentum
        self.momenta = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
        """By name; updated in place."""
        self._batches = _batches(self.momenta)

    @torch.no_grad()
    def directions(self, gradients: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Take the gradients into the momenta, and yield all updates, a batch of one shape at a time.

        An update is to be subtracted from its weight, times `iota.model.updates.muon_scale` and the learning
        rate; its dtype is that of `polar`. The momentum is Nesterov's: m <- mu m + (1 - mu) g, and what is
        orthogonalised is g + mu (m - g). `gradients` are fp32 and stay as they are.
        """
        names = list(self.momenta)
        if names:
            momenta = [self.momenta[name] for name in names]
            torch._foreach_lerp_(momenta, [gradients[name] for name in names], 1 - self._momentum)
        for batch in self._batches:
            yield dict(zip(batch, polar(self._ahead(batch, gradients)).unbind(), strict=True))

    def reset(self) -> None:
        """Set all momenta to zero."""
        for momentum in self.momenta.values():
            momentum.zero_()

    def _ahead(self, batch: Sequence[str], gradients: Mapping[str, Tensor]) -> Tensor:
        """Gradients and momenta of a batch by Nesterov's rule, [B, R, C]."""
        like = self.momenta[batch[0]]
        ahead_BRC = like.new_empty(len(batch), *like.shape)
        for own_RC, name in zip(ahead_BRC, batch, strict=True):
            torch.lerp(gradients[name], self.momenta[name], self._momentum, out=own_RC)
        return ahead_BRC


def _batches(matrices: Mapping[str, Tensor]) -> list[list[str]]:
    """Names by shape, in their order, as many together as `_BATCH_BYTES` hold."""
    by_shape: dict[torch.Size, list[str]] = {}
    for name, matrix in matrices.items():
        by_shape.setdefault(matrix.shape, []).append(name)
    found = []
    for (rows, columns), names in by_shape.items():
        device = matrices[names[0]].device
        most = device_of(device).cached_bytes or _BATCH_BYTES
        size = max(1, most // polar_bytes(rows, columns, device))
        found += [names[at : at + size] for at in range(0, len(names), size)]
    return found
