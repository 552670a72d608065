"""Mean of a step's gradient, and its clipping by stage (`iota.model.updates.clip_threshold`)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from iota.compute.errors import BadValueError

_EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


def mean_and_clip(sums: Mapping[str, Tensor], count: int, threshold: float) -> float:
    """Replace sums of `count` gradients by their clipped mean, in place. Returns the mean's norm.

    Raises BadValueError if the norm is not finite; the sums are then unchanged.
    """
    tensors = list(sums.values())
    norm = float(torch.nn.utils.get_total_norm(tensors)) / count
    if not math.isfinite(norm):
        raise BadValueError("the step's gradient has a norm that is not finite")
    # One multiplication for mean and clipping, since each rounds.
    scale = min(1.0, threshold / (norm + _EPSILON)) / count
    if scale != 1.0:
        for tensor in tensors:
            tensor.mul_(scale)
    return norm
