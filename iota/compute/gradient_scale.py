"""A factor that a sum of gradients still has to be multiplied by."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled(gradient: Tensor, scale: float) -> Tensor:
    """The gradient times `scale`, fp32; itself where that changes nothing."""
    return gradient if scale == 1.0 and gradient.dtype is torch.float32 else gradient.float().mul(scale)
