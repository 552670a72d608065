"""A factor that a sum of gradients still has to be multiplied by."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

Scale: TypeAlias = float | Tensor
"""A number, or a scalar on the device for which the host does not wait."""


def is_one(scale: Scale) -> bool:
    """Whether a factor is known to change nothing."""
    return isinstance(scale, float) and scale == 1.0


def scaled(gradient: Tensor, scale: Scale) -> Tensor:
    """The gradient times `scale`, fp32; itself where that changes nothing."""
    return gradient if is_one(scale) and gradient.dtype is torch.float32 else gradient.float().mul(scale)
