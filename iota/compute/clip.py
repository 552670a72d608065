"""Mean of a step's gradient, and its clipping by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from iota.compute.errors import BadValueError
from iota.model.layout import stage_parameters
from iota.spec import RunSpec

_EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


def clip_threshold(spec: RunSpec, stage: int) -> float:
    """The stage's bound c·sqrt(P_stage / P_model), with which the whole model's norm is at most c.

    It needs no communication between stages. Infinite if the run does not clip.
    """
    if spec.optimizer.clip is None:
        return math.inf
    parameters = stage_parameters(spec.model, spec.layout.cuts, spec.boundary)
    return spec.optimizer.clip * math.sqrt(parameters[stage] / sum(parameters))


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
