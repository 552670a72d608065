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
    PostedWeights,
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


@dataclass(slots=True)
class Judged:
    """A validator's audits of one epoch: the fields of `iota.protocol.member_records.EpochAudits`."""

    epoch: int
    verdicts: Counter[Outcome] = field(default_factory=Counter)
    heldout: float | None = None
    done: bool = False


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
    judged: deque[Judged] = field(default_factory=lambda: deque(maxlen=EPOCHS_KEPT))
    """Of a validator, as the rest below: the epochs that it has revealed its link for."""
    filed: Counter[tuple[AuditKind, Outcome]] = field(default_factory=Counter)
    heldouts: int = 0
    posted: PostedWeights | None = None

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

    def judged_of(self, epoch: int) -> Judged | None:
        """A validator's audits of `epoch`; None where it has revealed no link, or they are too old."""
        return next((judged for judged in reversed(self.judged) if judged.epoch == epoch), None)

    def file(self, verdict: Verdict) -> None:
        """Count a verdict of this validator."""
        self.filed[verdict.audit, verdict.outcome] += 1
        if (judged := self.judged_of(verdict.epoch)) is not None:
            judged.verdicts[verdict.outcome] += 1

    def measure(self, base: int, loss: float) -> None:
        """Keep this validator's held-out loss of the base of epoch `base`, which the epoch before made."""
        judged = self.judged_of(base - 1)
        if judged is not None and judged.heldout is None:
            judged.heldout = loss
            self.heldouts += 1

    def weigh(self, posted: PostedWeight) -> None:
        """Keep a weight; a repeated report of the same block takes the place of the first."""
        last = self.weights[-1] if self.weights else None
        if last is not None and (last.validator, last.block) == (posted.validator, posted.block):
            self.weights.pop()
        self.weights.append(posted)

    def happened(self, at: float, epoch: int, text: str) -> None:
        """Keep an incident. `at` is in Unix seconds."""
        self.incidents.append(Incident(at=at, epoch=epoch, text=text))
