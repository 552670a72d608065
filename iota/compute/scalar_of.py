"""Backwards from a given gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def scalar_of(output: Tensor, gradient: Tensor) -> Tensor:
    """A scalar whose backward has `gradient` at `output`, to the bit.

    Where autograd is given a gradient itself, it imports sympy to compare shapes: a second, and 30 MB.
    """
    with torch.enable_grad():
        return torch.dot(output.flatten(), gradient.flatten())
