"""Initial weights as tensors; `iota.model.initial_values` makes them."""

from __future__ import annotations

import torch
from torch import Tensor

from iota.model.initial_values import initial_values
from iota.spec import RunSpec


def initial_weights(spec: RunSpec, stage: int) -> dict[str, Tensor]:
    """fp32 weights of `stage` on the CPU, sorted by name."""
    found = initial_values(spec, stage, torch.get_num_threads())
    return {name: torch.from_numpy(values) for name, values in found.items()}
