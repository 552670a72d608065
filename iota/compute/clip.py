"""Mean of a step's gradient, and its clipping by stage (`iota.model.updates.clip_threshold`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iota.compute.errors import BadValueError

_EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


def mean_and_clip(sums: Mapping[str, Tensor], count: int, threshold: float) -> float:
    """Replace sums of `count` gradients by their clipped mean, in place. Returns the mean's norm.

    The norm of finite sums is finite, also where their squares overflow. Raises BadValueError if a sum is not
    finite; all are then unchanged.
    """
    tensors, unit = list(sums.values()), 1.0
    total = float(torch.nn.utils.get_total_norm(tensors))
    if math.isinf(total):
        unit = _unit(tensors)
        for tensor in tensors:
            tensor.mul_(1 / unit)
        total = unit * float(torch.nn.utils.get_total_norm(tensors))
    norm = total / count
    if not math.isfinite(norm):
        raise BadValueError("the step's gradient has a norm that is not finite")
    # One multiplication for mean and clipping, since each rounds.
    scale = unit * min(1.0, threshold / (norm + _EPSILON)) / count
    if scale != 1.0:
        for tensor in tensors:
            tensor.mul_(scale)
    return norm


def _unit(tensors: Sequence[Tensor]) -> float:
    """The largest power of two that is not above the largest magnitude: scaling by it does not round.

    Raises BadValueError if a value is not finite.
    """
    largest = max(float(torch.linalg.vector_norm(tensor, math.inf)) for tensor in tensors)
    if not math.isfinite(largest):
        raise BadValueError("the step's gradient has values that are not finite")
    return math.ldexp(1.0, math.frexp(largest)[1] - 1)
