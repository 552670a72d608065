"""Mean of a step's gradient, and its clipping by stage (`iota.model.updates.clip_threshold`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iota.compute.errors import BadValueError

_EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


class Clipped(NamedTuple):
    """What sums of gradients became."""

    norm: float
    """Of the mean, before clipping."""
    scale: float
    """What the sums are still to be multiplied by, to be the clipped mean: 1 for fp32 ones."""


def mean_and_clip(sums: Mapping[str, Tensor], count: int, threshold: float) -> Clipped:
    """Make the clipped mean of sums of `count` gradients: of fp32 ones in place.

    bf16 sums would be rounded once more, so theirs is left to whoever reads them piece by piece.
    The norm of finite sums is finite, also where their squares overflow. Raises BadValueError if a sum is not
    finite; all are then unchanged.
    """
    tensors, unit = list(sums.values()), 1.0
    total = _norm(tensors)
    if math.isinf(total):
        unit = _unit(tensors)
        for tensor in tensors:
            tensor.mul_(1 / unit)
        total = unit * _norm(tensors)
    norm = total / count
    if not math.isfinite(norm):
        raise BadValueError("the step's gradient has a norm that is not finite")
    # One multiplication for mean and clipping, since each rounds.
    scale = unit * min(1.0, threshold / (norm + _EPSILON)) / count
    if any(tensor.dtype is not torch.float32 for tensor in tensors):
        return Clipped(norm, scale)
    if scale != 1.0:
        for tensor in tensors:
            tensor.mul_(scale)
    return Clipped(norm, 1.0)


def _norm(tensors: Sequence[Tensor]) -> float:
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def _unit(tensors: Sequence[Tensor]) -> float:
    """The largest power of two that is not above the largest magnitude: scaling by it does not round.

    Raises BadValueError if a value is not finite.
    """
    largest = max(float(torch.linalg.vector_norm(tensor, math.inf)) for tensor in tensors)
    if not math.isfinite(largest):
        raise BadValueError("the step's gradient has values that are not finite")
    return math.ldexp(1.0, math.frexp(largest)[1] - 1)
