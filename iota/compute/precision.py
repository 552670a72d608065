"""The dtype of computed values, and of the weights that they are computed with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from iota.model.layout import multiplied_names
from iota.spec import Precision, RunSpec


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Context manager for ops of a run: bf16 autocast or nothing. Weights and gradient sums stay fp32."""
    if precision is Precision.FP32:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def bf16_names(spec: RunSpec, stage: int) -> frozenset[str]:
    """Parameters that autocast would convert to bf16 in every pass: those of matrix products.

    Converted once for each weight version, they give the same values, and graphs share them.
    """
    return multiplied_names(spec, stage) if spec.precision.computes_bf16 else frozenset()
