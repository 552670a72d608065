"""Checks for NaN and Inf."""

from __future__ import annotations

import torch
from torch import Tensor


def checksum(tensor: Tensor) -> Tensor:
    """The sum in fp32, a scalar on the tensor's device: it is finite if all values are, unless it overflows.

    A sum propagates NaN and Inf, and reads each value once.
    """
    return tensor.detach().sum(dtype=torch.float32)


def all_finite(*tensors: Tensor) -> bool:
    """Whether no tensor has NaN or Inf. False also if a sum overflows fp32. The host waits for the answer."""
    return bool(torch.stack([checksum(tensor) for tensor in tensors]).isfinite().all())
