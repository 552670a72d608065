"""Check for NaN and Inf."""

from __future__ import annotations

import torch
from torch import Tensor


def all_finite(*tensors: Tensor) -> bool:
    """Whether no tensor has NaN or Inf. False also if a tensor's sum overflows fp32.

    The host waits for the answer, since it decides whether an op adds to a gradient. FORWARD, LOSS and
    BACKWARD have no other wait for the device.
    """
    # A sum propagates NaN and Inf, and reads each value once.
    return bool(torch.stack([tensor.sum(dtype=torch.float32) for tensor in tensors]).isfinite().all())
