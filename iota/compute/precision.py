"""The dtype of computed values, and of the weights that they are computed with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from iota.model.layout import multiplied_names, run_shapes
from iota.spec import Precision, RunSpec

_TABLE = "embed.weight"
"""Its rows are looked up in its own dtype: a copy in fp32 would be gigabytes (`iota.model.lookup`)."""


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Context manager for ops of a run: bf16 autocast or nothing.

    The residual stream, norms and losses are fp32 in every precision.
    """
    if precision is Precision.FP32:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def operand_dtypes(spec: RunSpec, stage: int) -> dict[str, torch.dtype]:
    """The parameters that ops use in another dtype than that of the weights, with it.

    With fp32 weights those that autocast would convert to bf16 in every pass, the operands of matrix
    products: converted once for each weight version, they give the same values, and graphs share them. With
    bf16 weights the few others, gains of norms and tables of codecs, are used in fp32, as with fp32 weights.
    """
    if not spec.precision.computes_bf16:
        return {}
    multiplied = multiplied_names(spec, stage)
    if not spec.precision.holds_bf16:
        return dict.fromkeys(multiplied, torch.bfloat16)
    others = [name for name in run_shapes(spec, stage) if name not in multiplied and name != _TABLE]
    return dict.fromkeys(others, torch.float32)
