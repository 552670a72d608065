"""A model of the network between members, the orchestrator and the store."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass
class Links:
    """Draws a delay for each message, so that messages overtake each other; some arrive twice."""

    rng: Random
    latency_s: float
    """Longest delay of a message."""
    repeat_rate: float = 0.1
    """Share of messages that arrive twice."""

    def delay(self) -> float:
        """Seconds that the next message takes."""
        return self.rng.uniform(0, self.latency_s)

    def copies(self) -> int:
        """How many times the next message arrives."""
        return 2 if self.rng.random() < self.repeat_rate else 1
