"""NaN and Inf."""

from __future__ import annotations

import torch
from torch import Tensor


def all_finite(*tensors: Tensor) -> bool:
    """True where no tensor holds NaN or Inf (nor values whose sum overflows fp32).

    The answer decides whether an op adds to a gradient, so that the host waits for it: the one wait for the
    device that is left in FORWARD, LOSS and BACKWARD.
    """
    # NaN and Inf both survive a sum, which reads each value once and writes one
    return bool(torch.stack([tensor.sum(dtype=torch.float32) for tensor in tensors]).isfinite().all())
