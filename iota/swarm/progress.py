"""Speed and utilization of a run, from its successive statuses. Pure: times are arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.protocol.status_delta import Status


@dataclass
class Progress:
    """Times and tokens since `began` (the start of the command), from statuses in order of time.

    Counts from the first status on, so that a resumed run's speed is that after its resumption.
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
    """Settled tokens of the first status."""
    _seen: float = 0.0
    _losses_before: int = 0
    _recent: list[tuple[float, int]] = field(default_factory=list)

    def observe(self, now: float, status: Status) -> None:
        """Take in `status`, read at `now` (seconds, on the clock of `began`)."""
        if self.latest is None:
            self.tokens_before = status["tokens"]
            self._losses_before = len(status["losses"])
        else:
            # The time since the last status counts for that status's phase.
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
        """Tokens settled since the first status."""
        return int(self.latest["tokens"]) - self.tokens_before if self.latest else 0

    @property
    def tokens_per_second(self) -> float:
        """Settled tokens over time in steps and merges; 0 before there is any."""
        seconds = self.steps_s + self.merge_s
        return self.tokens / seconds if seconds > 0 else 0.0

    @property
    def recent_tokens_per_second(self) -> float:
        """Settled tokens per second over the last 15 s; 0 with fewer than two statuses."""
        if not self._recent:
            return 0.0
        (first, before), (last, after) = self._recent[0], self._recent[-1]
        return (after - before) / (last - first) if last > first else 0.0

    @property
    def speed(self) -> float:
        """Tokens per second as they are shown: the newest, before two statuses what the nodes report."""
        nodes = (self.latest or {}).get("nodes", {}).values()
        reported = (float(node["tokens_per_second"]) for node in nodes)
        return self.recent_tokens_per_second or max(reported, default=0.0)

    @property
    def eta_s(self) -> float | None:
        """Seconds to the last step at the pace of the steps seen, merges included; None before the first."""
        if self.latest is None:
            return None
        seen = len(self.latest["losses"]) - self._losses_before
        done = self.latest["epoch"] * self.latest["steps"] + self.latest["step"]
        left = self.latest["epochs"] * self.latest["steps"] - done
        return left * (self.steps_s + self.merge_s) / seen if seen > 0 and left > 0 else None

    @property
    def utilization(self) -> float:
        """Time in steps over time in steps and merges (docs/training.md); 0 before there is any."""
        seconds = self.steps_s + self.merge_s
        return self.steps_s / seconds if seconds > 0 else 0.0
