"""The dtype of computed values."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from iota.spec import ComputeDtype


def autocast(dtype: ComputeDtype, device: torch.device) -> AbstractContextManager[object]:
    """Context manager for ops of a run: bf16 autocast or nothing. Weights and gradient sums stay fp32."""
    if dtype is ComputeDtype.FP32:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
