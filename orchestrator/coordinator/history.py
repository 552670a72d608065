"""What is kept about one member for people: work, verdicts, weights, incidents. Nothing decides by it.

Each fact costs the same whatever came before; what is kept is bounded (`iota.protocol.member_records`).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from iota.protocol.member_records import (
    EPOCHS_KEPT,
    RECENT_KEPT,
    AuditResult,
    Incident,
    PostedWeight,
)
from iota.protocol.messages import AuditKind, Outcome, Verdict
from iota.protocol.receipts import OpKind

_OUTCOMES = tuple(outcome.value for outcome in Outcome)


@dataclass(slots=True)
class Work:
    """One epoch's work, counted up: the fields of `iota.protocol.member_records.EpochWork`."""

    epoch: int
    forward: int = 0
    backward: int = 0
    steps: int = 0
    tokens: int = 0
    met: int = 0
    missed: int = 0
    withdrawn: int = 0

    def count(self, kind: OpKind) -> None:
        """Count one receipted op."""
        if kind is OpKind.FORWARD:
            self.forward += 1
        elif kind is OpKind.STEP:
            self.steps += 1
        else:
            self.backward += 1


@dataclass
class History:
    """The record of one member."""

    epochs: deque[Work] = field(default_factory=lambda: deque(maxlen=EPOCHS_KEPT))
    audits: Counter[tuple[AuditKind, Outcome]] = field(default_factory=Counter)
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_OUTCOMES, 0))
    """The same over all kinds, for the status, which is made often."""
    verdicts: deque[AuditResult] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))
    failed: deque[AuditResult] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))
    weights: deque[PostedWeight] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))
    incidents: deque[Incident] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))

    def work(self, epoch: int) -> Work:
        """The work of `epoch`, which is that of the last call or a later one."""
        if not self.epochs or self.epochs[-1].epoch < epoch:
            self.epochs.append(Work(epoch))
        return self.epochs[-1]

    def judge(self, validator: str, verdict: Verdict) -> None:
        """Keep a verdict on this member."""
        result = AuditResult(
            validator=validator,
            epoch=verdict.epoch,
            audit=verdict.audit,
            outcome=verdict.outcome,
            reason=verdict.reason,
        )
        self.audits[verdict.audit, verdict.outcome] += 1
        self.outcomes[verdict.outcome.value] += 1
        self.verdicts.append(result)
        if verdict.outcome is Outcome.FAIL:
            self.failed.append(result)

    def weigh(self, posted: PostedWeight) -> None:
        """Keep a weight; a repeated report of the same block takes the place of the first."""
        last = self.weights[-1] if self.weights else None
        if last is not None and (last.validator, last.block) == (posted.validator, posted.block):
            self.weights.pop()
        self.weights.append(posted)

    def happened(self, at: float, epoch: int, text: str) -> None:
        """Keep an incident. `at` is in Unix seconds."""
        self.incidents.append(Incident(at=at, epoch=epoch, text=text))
