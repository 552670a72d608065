"""The number format of the weights that replicas hold: fp32, or bf16 in the precision `bf16-sr`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from iota.spec import RunSpec


def weight_dtype(spec: RunSpec) -> torch.dtype:
    """Dtype of the weights in a replica's state."""
    return torch.bfloat16 if spec.precision.holds_bf16 else torch.float32


def as_weights(spec: RunSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a replica starts with, from fp32 ones: rounded to the nearest, of two to the even.

    In fp32 they share the memory of what was given.
    """
    return {name: tensor.to(weight_dtype(spec)) for name, tensor in tensors.items()}
