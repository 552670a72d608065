"""What the public verdicts of all validators come to: which count, whose author is silenced. Pure.

For a task that this validator has decided itself, its own verdict stands. An accusation (FAIL, UNDELIVERED or
REVOKED) of another validator counts through the own verdict of its examination alone. Of an epoch that this
validator did not audit, because it joined later, the evidence is gone: there an accusation counts if most of
the validators that took part in the epoch made it.

Whose evidence is gone is for each validator to find by its own draw: an INCONCLUSIVE of another counts for
nothing, so that none can withhold a miner's pay by saying so. Where it was evidence on a STEP, the epoch
before is undecided too.

Who accused where the truth is a PASS, or passed where it is a FAIL, is silenced: of epochs less than a window
from there, before and after, none of its verdicts counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from iota.protocol.messages import AuditKind, Outcome, Verdict
from iota.spec import RunSpec
from validator.core.draw import draw, step_draw
from validator.core.tasks import STEP_AUDITS, WORK_AUDITS, is_certain, owes
from validator.core.vesting import Findings, MinerEpoch, with_epochs_before

ACCUSING = (Outcome.FAIL, Outcome.UNDELIVERED, Outcome.REVOKED)
"""Outcomes that count through an examination alone."""
_CONTRARY = {Outcome.PASS, Outcome.FAIL}


@dataclass(frozen=True)
class Task:
    """What a verdict is about: the miner that is judged, and the receipt or object of it."""

    epoch: int
    miner: str
    audit: AuditKind
    seq: int


@dataclass(frozen=True)
class Judgement:
    """A verdict of one validator, without its texts. Its signature was checked."""

    validator: str
    task: Task
    outcome: Outcome
    lacks_evidence: bool = False
    """Its own draw demanded evidence that was gone, or was none. Only an own judgement says so."""

    @classmethod
    def of(cls, validator: str, verdict: Verdict) -> Judgement:
        """The judgement of a verdict."""
        task = Task(verdict.epoch, verdict.miner, verdict.audit, verdict.seq)
        return cls(validator, task, verdict.outcome)


@dataclass(frozen=True)
class Pool:
    """What others published of an epoch, checked."""

    links: Mapping[str, str]
    """validator -> its link, of validators with a permit whose link is of the chain that they committed."""
    judgements: tuple[Judgement, ...]
    """The relevant ones."""
    complete: bool
    """Whether the audits of the epoch were closed, so that no verdict was added later."""


@dataclass(frozen=True)
class EpochFacts:
    """What the draws of an epoch follow from, and this validator's part in it."""

    block_hash: str
    links: Mapping[str, str]
    steps: Mapping[str, tuple[int, ...]]
    """miner -> seqs of its STEP receipts."""
    present: bool
    """This validator filed all its verdicts of the epoch."""
    pooled: bool
    """The verdicts of the others are known."""


def is_relevant(judgement: Judgement, accused: Container[Task]) -> bool:
    """Whether scores depend on it: the many passes of ops matter only where somebody accuses.

    Args:
        accused: tasks of which some verdict is in `ACCUSING`.
    """
    return judgement.task.audit in STEP_AUDITS or judgement.task in accused


class _Reading:
    """The verdicts of all validators, by task, and who takes part in each epoch."""

    def __init__(
        self, spec: RunSpec, own: str, epochs: Mapping[int, EpochFacts], judgements: Iterable[Judgement]
    ) -> None:
        self.spec, self.own, self.epochs = spec, own, epochs
        self.voices: dict[Task, dict[str, Outcome]] = defaultdict(dict)
        self.undecided: set[MinerEpoch] = set()
        self.undecided_steps: set[MinerEpoch] = set()
        self.owing: set[tuple[str, int, str]] = set()
        """(validator, epoch, miner) whose next epoch has a STEP audit for certain (`tasks.is_certain`)."""
        for judgement in judgements:
            task, author = judgement.task, judgement.validator
            self.voices[task][author] = judgement.outcome
            if owes(task.audit, judgement.outcome):
                self.owing.add((author, task.epoch, task.miner))
            if author == own and judgement.lacks_evidence and task.audit in WORK_AUDITS:
                self.undecided.add((task.epoch, task.miner))
                if task.audit in STEP_AUDITS:
                    self.undecided_steps.add((task.epoch, task.miner))
        self.refuted: dict[str, set[int]] = defaultdict(set)

    def silenced(self, validator: str, epoch: int) -> bool:
        window = self.spec.audit.window
        return any(abs(epoch - at) < window for at in self.refuted.get(validator, ()))

    def refute(self, truths: Mapping[Task, Outcome | None]) -> None:
        """Note who said the contrary of the truth. UNDELIVERED is none, since a line may have been down."""
        for task, truth in truths.items():
            for author, outcome in self.voices[task].items():
                if {outcome, truth} == _CONTRARY:
                    self.refuted[author].add(task.epoch)

    def absent(self, epoch: int) -> bool:
        """Whether this validator has to go by others in an epoch."""
        facts = self.epochs.get(epoch)
        return facts is not None and not facts.present

    def by_majority(self, task: Task) -> Outcome | None:
        """What more than half of the validators say that took part in the epoch and are not silenced."""
        judges = {v for v in self.epochs[task.epoch].links if not self.silenced(v, task.epoch)}
        votes = Counter(outcome for author, outcome in self.voices[task].items() if author in judges)
        return next((outcome for outcome, count in votes.items() if 2 * count > len(judges)), None)

    def truth(self, task: Task) -> Outcome | None:
        """The outcome that stands of a task, as far as this validator can tell."""
        own = self.voices[task].get(self.own)
        if own is None and self.absent(task.epoch):
            return self.by_majority(task)
        return own

    def is_drawn(self, author: str, task: Task) -> bool:
        """Whether the author's draw demands this audit of a STEP or an epoch."""
        facts = self.epochs.get(task.epoch)
        link = None if facts is None else facts.links.get(author)
        if facts is None or link is None:
            return False
        spec, steps = self.spec, facts.steps.get(task.miner, ())
        drawn = step_draw(
            draw(spec.id, facts.block_hash, link, task.epoch, task.miner), spec.audit, len(steps)
        )
        if drawn.at is None:
            return False
        if task.audit is AuditKind.EPOCH:
            return drawn.epoch and task.seq == steps[-1]
        certain = is_certain(spec, task.epoch, owed=self._owed(author, task))
        return (drawn.step or certain) and task.seq == steps[drawn.at]

    def _owed(self, author: str, task: Task) -> bool:
        before = self.epochs.get(task.epoch - 1)
        unknown = before is None or not (before.pooled or author == self.own)
        return (unknown and task.epoch > 0) or (author, task.epoch - 1, task.miner) in self.owing


def findings(
    spec: RunSpec, own: str, epochs: Mapping[int, EpochFacts], judgements: Iterable[Judgement]
) -> Findings:
    """What all verdicts come to, for the validator `own`. The order of `judgements` does not matter.

    Args:
        epochs: those that this validator knows something of.
        judgements: its own, and those of others, of these epochs.
    """
    reading = _Reading(spec, own, epochs, judgements)
    # Own verdicts first: the silence that follows from them decides who has a voice where it was absent.
    reading.refute({task: voices[own] for task, voices in reading.voices.items() if own in voices})
    reading.refute({task: reading.truth(task) for task in reading.voices if own not in reading.voices[task]})

    found: dict[Outcome | None, set[MinerEpoch]] = defaultdict(set)
    passed: set[MinerEpoch] = set()
    decided: set[MinerEpoch] = set()
    for task, voices in reading.voices.items():
        at = (task.epoch, task.miner)
        found[reading.truth(task)].add(at)
        counting = {
            author
            for author, outcome in voices.items()
            if task.audit in STEP_AUDITS
            and outcome is Outcome.PASS
            and (author == own or not reading.silenced(author, task.epoch))
            and reading.is_drawn(author, task)
        }
        if counting:
            passed.add(at)
        if own in counting:
            decided.add(at)
    worked = [(n, miner) for n, facts in epochs.items() for miner, steps in facts.steps.items() if steps]
    before = with_epochs_before(reading.undecided_steps - decided, worked)
    return Findings(
        passed=frozenset(passed),
        undelivered=frozenset(found[Outcome.UNDELIVERED]),
        revoked=frozenset(found[Outcome.REVOKED]),
        failed=frozenset(found[Outcome.FAIL]),
        undecided=frozenset((reading.undecided - decided) | before),
        silenced={v: tuple(sorted(epochs)) for v, epochs in sorted(reading.refuted.items())},
    )
