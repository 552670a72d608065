"""Muon (Jordan et al. 2024): momentum, orthogonalised. Matrices of one shape are taken together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from iota.compute.gradient_scale import scaled
from iota.compute.moments import open_moment
from iota.compute.polar import polar, polar_bytes
from iota.compute.rounding import Rounding, pieces

_BATCH_BYTES: Final = 1 << 30
"""Memory that one batch may take. A larger matrix is a batch of its own."""
_CPU_BATCH_BYTES: Final = 5 << 19
"""The same on a CPU, whose caches hold so much: larger batches were a fifth slower."""


class Muon:
    """The updates that the momenta of named matrices make. It has no weights."""

    def __init__(self, momentum: float, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """`moments` are all of the stage: what this one reads and writes."""
        self._momentum = momentum
        self._momenta = {name: open_moment(moments, f"momentum_buffer.{name}") for name in weights}
        self._batches = _batches(weights)

    @torch.no_grad()
    def directions(
        self, gradients: Mapping[str, Tensor], scale: float, rounding: Rounding | None
    ) -> Iterator[dict[str, Tensor]]:
        """Take the gradients into the momenta, and yield all updates, a batch of one shape at a time.

        An update is to be subtracted from its weight, times `iota.model.updates.muon_scale` and the learning
        rate; its dtype is that of `polar`. The momentum is Nesterov's: m <- mu m + (1 - mu) g, rounded to
        what is kept of it, and what is orthogonalised is g + mu (m - g). `gradients` are fp32 or bf16, taken
        times `scale`, and stay as they are; `rounding` is None where momenta are fp32.
        """
        for batch in self._batches:
            ahead_BRC = self._ahead(batch, gradients, scale, rounding)
            yield dict(zip(batch, polar(ahead_BRC).unbind(), strict=True))

    def _ahead(
        self, batch: Sequence[str], gradients: Mapping[str, Tensor], scale: float, rounding: Rounding | None
    ) -> Tensor:
        """Gradients and momenta of a batch by Nesterov's rule, [B, R, C]."""
        like = gradients[batch[0]]
        ahead_BRC = torch.empty(len(batch), *like.shape, dtype=torch.float32, device=like.device)
        for own_RC, name in zip(ahead_BRC, batch, strict=True):
            gradient_N, own_N = gradients[name].reshape(-1), own_RC.view(-1)
            momentum = self._momenta[name]
            for piece in pieces(own_N.numel(), own_N.device):
                g_N = scaled(gradient_N[piece], scale)
                m_N = momentum.read(piece).lerp_(g_N, 1 - self._momentum)
                m_N = momentum.write(piece, m_N, rounding)
                torch.lerp(g_N, m_N, self._momentum, out=own_N[piece])
        return ahead_BRC


def _batches(matrices: Mapping[str, Tensor]) -> list[list[str]]:
    """Names by shape, in their order, as many together as `_BATCH_BYTES` hold."""
    by_shape: dict[torch.Size, list[str]] = {}
    for name, matrix in matrices.items():
        by_shape.setdefault(matrix.shape, []).append(name)
    found = []
    for (rows, columns), names in by_shape.items():
        device = matrices[names[0]].device
        most = _CPU_BATCH_BYTES if device.type == "cpu" else _BATCH_BYTES
        size = max(1, most // polar_bytes(rows, columns, device))
        found += [names[at : at + size] for at in range(0, len(names), size)]
    return found
