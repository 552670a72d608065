"""Inputs of the fingerprint's suite: values that a nonce decides, with the same bits on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from iota.codec.shapes import Shapes
from iota.compute.tokens import Tokens
from iota.protocol.fingerprints import FINGERPRINT_DOMAIN

SMALL: Final = 1e-3
"""Standard deviation of gradients and moments."""
_STEPS: Final = 7.0
"""Steps that moments stand for."""


@dataclass(frozen=True)
class Seeded:
    """Values by name, on `device`. What rounds are single operations, which IEEE 754 defines exactly."""

    nonce: str
    device: torch.device

    def values(self, name: str, shape: tuple[int, ...], std: float = 1.0) -> Tensor:
        """fp32 values, uniform around 0."""
        drawn = np.frombuffer(self._bytes(name, 4 * math.prod(shape)), "<i4")
        made = drawn.astype(np.float32) * np.float32(std * math.sqrt(3) / 2**31)
        return torch.from_numpy(made.reshape(shape)).to(self.device)

    def tokens(self, name: str, shape: tuple[int, ...], vocabulary: int) -> Tokens:
        """Token ids, int64."""
        drawn = np.frombuffer(self._bytes(name, 8 * math.prod(shape)), "<u8")
        return (drawn % vocabulary).astype(np.int64).reshape(shape)

    def weights(self, shapes: Shapes) -> dict[str, Tensor]:
        """Weights with which activations keep their size from layer to layer. None is zero, as at a start."""
        return {
            name: self.values(name, shape, shape[-1] ** -0.5)
            if len(shape) > 1
            else 1 + self.values(name, shape, 0.1)
            for name, shape in shapes.items()
        }

    def moments(self, shapes: Shapes) -> dict[str, Tensor]:
        """Moments as after some steps."""
        return {name: self._moment(name, shape) for name, shape in shapes.items()}

    def _moment(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name.startswith("step."):
            return torch.full(shape, _STEPS, device=self.device)
        values = self.values(name, shape, SMALL)
        return values.square() if name.startswith("exp_avg_sq.") else values

    def _bytes(self, name: str, length: int) -> bytes:
        return blake3(f"{FINGERPRINT_DOMAIN}\n{self.nonce}\n{name}".encode()).digest(length=length)
