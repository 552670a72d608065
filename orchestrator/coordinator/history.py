"""What is kept about one member for people: work, verdicts, weights, incidents. Nothing decides by it.

Each fact costs the same whatever came before; what is kept is bounded (`iota.protocol.member_records`).
Records are kept as JSON and counts of past epochs as numbers, in plain tuples: there are a hundred for each
member, and so the garbage collector need not follow them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from operator import attrgetter

from pydantic import BaseModel

from iota.protocol.member_records import (
    EPOCHS_KEPT,
    RECENT_KEPT,
    AuditResult,
    Incident,
    PostedWeight,
    PostedWeights,
    Withdrawal,
)
from iota.protocol.messages import CHARGING, AuditKind, Outcome, Verdict
from iota.protocol.receipts import OpKind

_OUTCOMES = tuple(outcome.value for outcome in Outcome)


def audits_of(kind: AuditKind, outcome: Outcome) -> str:
    """The key of `History.audits`: a text, since the garbage collector follows members of an enum."""
    return f"{kind.value} {outcome.value}"


Records = tuple[bytes, ...]
"""The newest records of one kind, as JSON."""


def keep(records: Records, record: BaseModel) -> Records:
    """The newest records, `record` among them."""
    return (*records, record.model_dump_json().encode())[-RECENT_KEPT:]


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
        elif kind in (OpKind.BACKWARD, OpKind.LOSS):
            self.backward += 1


_numbers = attrgetter(*(each.name for each in fields(Work)))


@dataclass(slots=True)
class Judged:
    """A validator's audits of one epoch: the fields of `iota.protocol.member_records.EpochAudits`."""

    epoch: int
    verdicts: Counter[Outcome] = field(default_factory=Counter)
    done: bool = False


@dataclass(slots=True)
class History:
    """The record of one member."""

    current: Work | None = None
    """The newest epoch with work."""
    past: tuple[tuple[int, ...], ...] = ()
    """The fields of `Work` of the epochs before it."""
    withdrawals: dict[str, int] = field(default_factory=dict)
    """Microbatches that were taken from it, by `Withdrawal`'s value."""
    audits: dict[str, int] = field(default_factory=dict)
    """Verdicts on a miner, or those that a validator has filed, by `audits_of`."""
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_OUTCOMES, 0))
    """Those on a miner over all kinds, for the status, which is made often."""
    verdicts: Records = ()
    """`AuditResult`, as the next."""
    failed: Records = ()
    settling: Records = ()
    weights: Records = ()
    """`PostedWeight`"""
    incidents: Records = ()
    """`Incident`"""
    judged: tuple[Judged, ...] = ()
    """Of a validator, as the rest below: the epochs that it has revealed its link for."""
    posted: PostedWeights | None = None

    def work(self, epoch: int) -> Work:
        """The work of `epoch`, which is that of the last call or a later one."""
        if self.current is None or self.current.epoch < epoch:
            if self.current is not None:
                self.past = (*self.past, _numbers(self.current))[1 - EPOCHS_KEPT :]
            self.current = Work(epoch)
        return self.current

    def epochs(self) -> Iterator[Work]:
        """The work of the newest epochs with any, in order."""
        yield from (Work(*numbers) for numbers in self.past)
        if self.current is not None:
            yield self.current

    def withdraw(self, epoch: int, why: Withdrawal) -> None:
        """Count a microbatch that was taken from this member."""
        self.work(epoch).withdrawn += 1
        self.withdrawals[why.value] = self.withdrawals.get(why.value, 0) + 1

    def judge(self, validator: str, verdict: Verdict) -> None:
        """Keep a verdict on this member."""
        result = AuditResult(
            validator=validator,
            epoch=verdict.epoch,
            audit=verdict.audit,
            outcome=verdict.outcome,
            reason=verdict.reason,
        )
        self._count(verdict)
        self.outcomes[verdict.outcome.value] += 1
        self.verdicts = keep(self.verdicts, result)
        if verdict.outcome is Outcome.FAIL:
            self.failed = keep(self.failed, result)
        if verdict.audit is AuditKind.SEGMENT or verdict.outcome in CHARGING:
            self.settling = keep(self.settling, result)

    def _count(self, verdict: Verdict) -> None:
        key = audits_of(verdict.audit, verdict.outcome)
        self.audits[key] = self.audits.get(key, 0) + 1

    def reveal(self, epoch: int) -> None:
        """This validator has revealed its link for `epoch`."""
        self.judged = (*self.judged, Judged(epoch))[-EPOCHS_KEPT:]

    def judged_of(self, epoch: int) -> Judged | None:
        """A validator's audits of `epoch`; None where it has revealed no link, or they are too old."""
        return next((judged for judged in reversed(self.judged) if judged.epoch == epoch), None)

    def file(self, verdict: Verdict) -> None:
        """Count a verdict of this validator."""
        self._count(verdict)
        if (judged := self.judged_of(verdict.epoch)) is not None:
            judged.verdicts[verdict.outcome] += 1

    def weigh(self, posted: PostedWeight) -> None:
        """Keep a weight; a repeated report of the same block takes the place of the first."""
        last = PostedWeight.model_validate_json(self.weights[-1]) if self.weights else None
        repeated = last is not None and (last.validator, last.block) == (posted.validator, posted.block)
        self.weights = keep(self.weights[:-1] if repeated else self.weights, posted)

    def happened(self, at: float, epoch: int, text: str) -> None:
        """Keep an incident, and of earlier ones the first, its join. `at` is in Unix seconds."""
        newest = keep(self.incidents, Incident(at=at, epoch=epoch, text=text))
        self.incidents = newest if len(newest) == 1 else (self.incidents[0], *newest[1:])
