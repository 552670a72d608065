"""The dtype that ops compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from iota.spec import ComputeDtype


def autocast(dtype: ComputeDtype, device: torch.device) -> AbstractContextManager[object]:
    """The context that ops of a run compute in; master weights and gradients stay fp32."""
    if dtype is ComputeDtype.FP32:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
