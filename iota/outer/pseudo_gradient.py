"""Pseudo-gradients: an epoch's change of the weights as one fp32 vector, ordered by parameter name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """A copy of the tensors as one fp32 vector on the CPU: sorted by name, each in row-major order."""
    return torch.cat([tensors[name].detach().reshape(-1).float().cpu() for name in sorted(tensors)])


def unflatten(vector_N: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Views of `vector_N` with the names and shapes of `like`: the inverse of `flatten`.

    Raises ValueError if the length is another.
    """
    names = sorted(like)
    sizes = [like[name].numel() for name in names]
    if vector_N.numel() != sum(sizes):
        raise ValueError(f"a vector of {vector_N.numel()} elements does not fill a stage of {sum(sizes)}")
    pieces = torch.split(vector_N, sizes)
    return {name: piece.view(like[name].shape) for name, piece in zip(names, pieces, strict=True)}


def pseudo_gradient(base: Mapping[str, Tensor], final: Mapping[str, Tensor]) -> Tensor:
    """The flattened W_e - v_H: weights at the epoch's start minus weights at its end.

    Raises ValueError if their names differ.
    """
    if base.keys() != final.keys():
        raise ValueError("base and final weights are of different stages")
    return flatten(base) - flatten(final)
