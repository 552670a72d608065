"""The validator's line in its log: audits by kind and outcome since the last one, and what it does. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from iota.console.durations import LINE_EVERY_S
from iota.protocol.messages import AuditKind, Outcome, Verdict

_WORDS: Final = {
    Outcome.PASS: "passed",
    Outcome.FAIL: "failed",
    Outcome.UNDELIVERED: "undelivered",
    Outcome.REVOKED: "revoked",
    Outcome.UNSHOWN: "unshown",
    Outcome.INCONCLUSIVE: "inconclusive",
}


@dataclass
class ProgressLines:
    """Counts verdicts, and decides when a line is due: each `LINE_EVERY_S`, also without a verdict."""

    began: float
    """Monotonic seconds."""
    most: float
    """Share of the machine's compute that the validator may take."""
    _counts: Counter[tuple[int, AuditKind, Outcome]] = field(default_factory=Counter)
    _total: int = 0
    _at: float | None = None

    def filed(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self._counts[verdict.epoch, verdict.audit, verdict.outcome] += 1
        self._total += 1

    def look(self, now: float, activity: str, weights: str, compute_share: float) -> str | None:
        """The line that is due at `now` (monotonic seconds), or None."""
        since = self.began if self._at is None else self._at
        if now < since + LINE_EVERY_S:
            return None
        filed = self._take(sorted({epoch for epoch, _, _ in self._counts}))
        self._at = now
        return (
            f"audits: {filed or 'no new verdict'} ({self._total} in all);"
            f" now: {activity}; weights: {weights}; {compute_share:.1%} of the machine,"
            f" {self.most:.0%} at most"
        )

    def audited(self, epoch: int) -> str:
        """The line for an epoch with all its verdicts filed: those that no line had yet."""
        return f"epoch {epoch} is audited: {self._take([epoch]) or 'no new verdict'} ({self._total} in all)"

    def _take(self, epochs: list[int]) -> str:
        """The counts of these epochs in words; they are not counted again."""
        found = sorted(key for key in self._counts if key[0] in epochs)
        parts = [
            f"epoch {epoch} {kind}: "
            + ", ".join(
                f"{self._counts[epoch, kind, outcome]} {word}"
                for outcome, word in _WORDS.items()
                if self._counts[epoch, kind, outcome]
            )
            for epoch, kind in dict.fromkeys((epoch, kind) for epoch, kind, _ in found)
        ]
        for key in found:
            del self._counts[key]
        return "; ".join(parts)
