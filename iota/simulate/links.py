"""A model of the network between members, the orchestrator and the store."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass
class Links:
    """Every message takes its own time, so that messages overtake each other; some arrive twice."""

    rng: Random
    latency_s: float
    """The longest that one message takes."""
    repeat_rate: float = 0.1

    def delay(self) -> float:
        return self.rng.uniform(0, self.latency_s)

    def copies(self) -> int:
        """How often a message arrives."""
        return 2 if self.rng.random() < self.repeat_rate else 1
