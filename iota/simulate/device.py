"""A model of a miner's device."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iota.protocol.receipts import OpKind
from miner.core.schedule import Op


@dataclass
class VirtualDevice:
    rng: Random
    nan_rate: float = 0.0
    """Share of ops, STEP excepted, that give NaN."""
    slowness: float = 1.0
    """Factor on the time of every op."""

    def seconds(self) -> float:
        """How long the next op takes."""
        return self.slowness * self.rng.uniform(0.05, 0.3)

    def gives_nan(self, op: Op) -> bool:
        return op.kind is not OpKind.STEP and self.rng.random() < self.nan_rate
