"""What the statuses of a run, one after the other, say about its speed. Pure: times are arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Status = dict[str, Any]
"""The JSON of `GET /v1/status`."""


@dataclass
class Progress:
    """Time and tokens since `began` (the start of the command), from statuses in order of time.

    Only what happens while it watches is counted: a run that is resumed has its speed measured
    from there on.
    """

    began: float
    latest: Status | None = None
    first_loss_s: float | None = None
    """Seconds from `began` to the first loss."""
    steps_s: float = 0.0
    """Seconds in steps."""
    merge_s: float = 0.0
    """Seconds in merges."""
    tokens_before: int = 0
    """Settled tokens when the watching began."""
    _seen: float = 0.0
    _losses_before: int = 0
    _recent: list[tuple[float, int]] = field(default_factory=list)

    def observe(self, now: float, status: Status) -> None:
        """`now` in seconds, on the clock of `began`."""
        if self.latest is None:
            self.tokens_before = status["tokens"]
            self._losses_before = len(status["losses"])
        else:
            # What passed since the last look belongs to the phase that it saw.
            passed = now - self._seen
            if self.latest["phase"] == "training":
                self.steps_s += passed
            elif self.latest["phase"] == "merging":
                self.merge_s += passed
        if self.first_loss_s is None and len(status["losses"]) > self._losses_before:
            self.first_loss_s = now - self.began
        self._recent = [(t, n) for t, n in self._recent if t > now - 15.0] + [(now, status["tokens"])]
        self.latest, self._seen = status, now

    @property
    def tokens(self) -> int:
        """Tokens settled while watching."""
        return int(self.latest["tokens"]) - self.tokens_before if self.latest else 0

    @property
    def tokens_per_second(self) -> float:
        """Over the whole training that was watched: steps and merges."""
        seconds = self.steps_s + self.merge_s
        return self.tokens / seconds if seconds > 0 else 0.0

    @property
    def recent_tokens_per_second(self) -> float:
        """Over the last 15 s."""
        (first, before), (last, after) = (
            (self._recent[0], self._recent[-1]) if self._recent else ((0.0, 0), (0.0, 0))
        )
        return (after - before) / (last - first) if last > first else 0.0

    @property
    def utilization(self) -> float:
        """Time in steps over time in steps and merges (training.md)."""
        seconds = self.steps_s + self.merge_s
        return self.steps_s / seconds if seconds > 0 else 0.0
