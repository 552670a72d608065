"""A model of a miner's device."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from iota.protocol.receipts import OpKey, OpKind
from miner.core.schedule import Op


@dataclass
class VirtualDevice:
    """Draws the duration of each op, and whether it gives NaN."""

    rng: Random
    nan_rate: float = 0.0
    """Share of ops that give NaN; a STEP never does."""
    slowness: float = 1.0
    """Factor on the duration of every op."""
    recording: float = 0.0
    """How long an op's result takes to the disk, as a share of its duration."""
    _nan: dict[OpKey, bool] = field(default_factory=dict)

    def seconds(self) -> float:
        """Duration of the next op."""
        return self.slowness * self.rng.uniform(0.05, 0.3)

    def gives_nan(self, op: Op) -> bool:
        """Whether `op` gives NaN: the same each time, so that a restarted miner repeats its epoch."""
        return self._nan.setdefault(op.key, op.kind is not OpKind.STEP and self.rng.random() < self.nan_rate)
