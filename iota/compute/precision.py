"""The dtype of computed values, and of the weights that they are computed with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from iota.model.layout import converted_names
from iota.spec import Precision, RunSpec


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Context manager for ops of a run: bf16 autocast or nothing.

    The residual stream, norms and losses are fp32 in every precision.
    """
    if precision is Precision.FP32:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def operand_dtypes(spec: RunSpec, stage: int) -> dict[str, torch.dtype]:
    """The parameters that ops use in another dtype than that of the weights, with it.

    With fp32 weights those that autocast would convert to bf16 in every pass: converted once for each weight
    version, they give the same values, and graphs share them. With bf16 weights the others are used in fp32,
    as with fp32 weights.
    """
    dtype = torch.float32 if spec.precision.holds_bf16 else torch.bfloat16
    return dict.fromkeys(sorted(converted_names(spec, stage)), dtype)
