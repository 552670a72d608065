"""Mean of a step's gradient, and its clipping by stage (`iota.model.updates.clip_threshold`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from iota.compute.devices import device_of
from iota.compute.errors import BadValueError
from iota.compute.gradient_scale import Scale

_EPSILON = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""
_SQUARES: Final = 126
"""A sum of squares up to 2^126 does not overflow fp32."""

LARGEST_MEAN: Final = 2.0**60
"""Norm to which a mean is clipped in a run that does not clip: squares of larger values, which neighbours can
bring about, would be Inf in second moments, and no snapshot may hold it."""


class Clipped(NamedTuple):
    """What sums of gradients became."""

    norm: Tensor
    """Of the mean, before clipping: a scalar."""
    scale: Scale
    """What the sums are still to be multiplied by, to be the clipped mean: 1 for fp32 ones."""


def mean_and_clip(sums: Mapping[str, Tensor], count: int, threshold: float, largest: float) -> Clipped:
    """Make the clipped mean of sums of `count` gradients: of fp32 ones in place.

    bf16 sums would be rounded once more, so theirs is left to whoever reads them piece by piece. The host
    does not wait for the device. The norm of finite sums is finite, also where their squares would overflow;
    where a sum is not finite, neither are norm and mean.

    Args:
        largest: no value of a sum has a larger magnitude.

    Raises:
        BadValueError: `largest` is not finite. The sums are unchanged.
    """
    tensors = list(sums.values())
    unit = _unit(largest, sum(tensor.numel() for tensor in tensors))
    if unit != 1.0:
        for tensor in tensors:
            tensor.mul_(1 / unit)
    total = _norm(tensors)
    norm = total.to(device_of(total.device).widest) * unit / count
    # One multiplication for mean and clipping, since each rounds.
    most = torch.full_like(norm, min(threshold, LARGEST_MEAN))
    scale = (most / (norm + _EPSILON)).clamp(max=1.0) * unit / count
    if any(tensor.dtype is not torch.float32 for tensor in tensors):
        return Clipped(norm, scale.float())
    for tensor in tensors:
        tensor.mul_(scale.float())
    return Clipped(norm, 1.0)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def largest_of(tensors: Iterable[Tensor]) -> float:
    """The largest magnitude of all values; NaN if one is NaN. The host waits for it."""
    return float(torch.stack([magnitude(tensor) for tensor in tensors]).amax())


def magnitude(tensor: Tensor) -> Tensor:
    """The largest magnitude of a value, an fp32 scalar on the tensor's device; NaN if one is NaN."""
    return torch.stack(torch.aminmax(tensor.detach())).abs().amax().float()


def _unit(largest: float, values: int) -> float:
    """The least power of two such that the squares of `values` up to `largest`, divided by it, can be summed.

    Dividing by it does not round. Raises BadValueError if `largest` is not finite.
    """
    if not math.isfinite(largest):
        raise BadValueError("the step's gradient has values that are not finite")
    spare = (_SQUARES - values.bit_length()) // 2
    return math.ldexp(1.0, max(0, math.frexp(largest)[1] - spare))
