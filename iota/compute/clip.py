"""The mean gradient of a step and its per-stage clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from iota.compute.errors import BadValueError
from iota.model.layout import stage_parameters
from iota.spec import RunSpec

_EPSILON = 1e-6


def clip_threshold(spec: RunSpec, stage: int) -> float:
    """c·sqrt(P_stage / P_model), so that all stages together allow a norm of c; Inf without clipping."""
    if spec.optimizer.clip is None:
        return math.inf
    parameters = stage_parameters(spec.model, spec.layout.cuts, spec.boundary)
    return spec.optimizer.clip * math.sqrt(parameters[stage] / sum(parameters))


def mean_and_clip(sums: Mapping[str, Tensor], count: int, threshold: float) -> float:
    """Turn sums of `count` gradients into their clipped mean, in place; returns the mean's norm.

    Mean and clipping are one multiplication. Raises BadValueError, before touching anything, where the
    norm is not finite.
    """
    tensors = list(sums.values())
    norm = float(torch.nn.utils.get_total_norm(tensors)) / count
    if not math.isfinite(norm):
        raise BadValueError("the step's gradient has a norm that is not finite")
    scale = min(1.0, threshold / (norm + _EPSILON)) / count
    if scale != 1.0:
        for tensor in tensors:
            tensor.mul_(scale)
    return norm
