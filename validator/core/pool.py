"""What the public verdicts of all validators come to: which count, whose author is silenced. Pure.

For a task that this validator has decided itself, its own verdict stands. An accusation (`Verdict.accuses`)
of another validator counts through the own verdict of its examination alone. Of an epoch that this validator
did not audit, because it joined later, the evidence is gone: there an accusation counts if most of the
validators that took part in the epoch made it.

A pass of a segment counts if its author's draw demands it: the public draw, which is the same for all, or its
own. What others find UNSHOWN counts for nothing by itself, so that none can withhold a miner's pay by saying
so. A segment that is UNSHOWN here too, and that some validator's draw demands, is hidden from all: it makes
several epochs of the miner undecided (`vesting.with_epochs_before`). Other evidence makes its epoch undecided
by the own draw alone.

Who accused where the truth is a PASS, or passed where it is a FAIL, is silenced: of epochs less than a window
from there, before and after, none of its verdicts counts. Not where the FAIL compared more narrowly than the
PASS (`is_narrower`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from iota.protocol.messages import AuditKind, Outcome, Verdict
from iota.spec import RunSpec
from validator.core.segments import Drawable, is_certain, own_segment, public_turns
from validator.core.tasks import WORK_AUDITS, owes
from validator.core.vesting import Findings, MinerEpoch, hidden_epochs, with_epochs_before

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
    profile: str = ""
    """Of its comparisons."""

    @classmethod
    def of(cls, validator: str, verdict: Verdict) -> Judgement:
        """The judgement of a verdict."""
        task = Task(verdict.epoch, verdict.miner, verdict.audit, verdict.seq)
        return cls(validator, task, verdict.outcome, verdict.profile)


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
    segments: Mapping[str, tuple[int, ...]]
    """miner -> seqs of the COMMITs that end its segments."""
    present: bool
    """This validator filed all its verdicts of the epoch."""
    pooled: bool
    """The verdicts of the others are known."""

    @property
    def drawable(self) -> Drawable | None:
        """What the public draw follows from; None while the block's hash is not known."""
        counts = {miner: len(seqs) for miner, seqs in self.segments.items()}
        return Drawable(self.block_hash, counts) if self.block_hash else None


def is_narrower(audit: AuditKind, failed: str, passed: str = "") -> bool:
    """Whether a FAIL shows lies that a PASS of the task cannot see, by the profiles of their comparisons.

    What is compared to the bit, or within what was measured of two classes, shows lies that lie within the
    wider bounds of other classes. With one a miner would else have honest validators silence each other.
    """
    by_device = audit in (AuditKind.OP, AuditKind.SEGMENT)
    return by_device and failed != passed and failed.startswith(("exact", "measured/"))


def is_relevant(judgement: Judgement, accused: Container[Task]) -> bool:
    """Whether scores depend on it: the many passes of ops matter only where somebody accuses.

    Args:
        accused: tasks of which some verdict accuses (`Verdict.accuses`).
    """
    return judgement.task.audit is AuditKind.SEGMENT or judgement.task in accused


class _Reading:
    """The verdicts of all validators, by task, and who takes part in each epoch."""

    def __init__(
        self,
        spec: RunSpec,
        own: str,
        epochs: Mapping[int, EpochFacts],
        judgements: Iterable[Judgement],
        earlier: Mapping[int, Drawable],
    ) -> None:
        self.spec, self.own, self.epochs = spec, own, epochs
        self.drawable = {**earlier, **{n: known for n, facts in epochs.items() if (known := facts.drawable)}}
        self.voices: dict[Task, dict[str, Outcome]] = defaultdict(dict)
        self.profiles: dict[tuple[Task, str], str] = {}
        self.undecided: set[MinerEpoch] = set()
        self.owing: set[tuple[str, int, str]] = set()
        """(validator, epoch, miner) whose next epoch has a segment audited for certain (`is_certain`)."""
        for judgement in judgements:
            task, author = judgement.task, judgement.validator
            self.voices[task][author] = judgement.outcome
            self.profiles[task, author] = judgement.profile
            if owes(task.audit, judgement.outcome):
                self.owing.add((author, task.epoch, task.miner))
            unshown = author == own and judgement.outcome is Outcome.UNSHOWN
            if unshown and task.audit in WORK_AUDITS and task.audit is not AuditKind.SEGMENT:
                self.undecided.add((task.epoch, task.miner))
        self.refuted: dict[str, set[int]] = defaultdict(set)

    def silenced(self, validator: str, epoch: int) -> bool:
        window = self.spec.audit.window
        return any(abs(epoch - at) < window for at in self.refuted.get(validator, ()))

    def refute(self, truths: Mapping[Task, Outcome | None]) -> None:
        """Note who said the contrary of the truth. UNDELIVERED is none, since a line may have been down."""
        for task, truth in truths.items():
            for author, outcome in self.voices[task].items():
                pair = (author, self.own) if outcome is Outcome.FAIL else (self.own, author)
                failed, passed = (self.profiles.get((task, each), "") for each in pair)
                if {outcome, truth} == _CONTRARY and not is_narrower(task.audit, failed, passed):
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
        """Whether the public draw, or the author's own, demands the audit of this segment."""
        facts = self.epochs.get(task.epoch)
        link = None if facts is None else facts.links.get(author)
        if facts is None or link is None or task.audit is not AuditKind.SEGMENT:
            return False
        seqs, spec = facts.segments.get(task.miner, ()), self.spec
        turns = public_turns(spec, task.epoch, task.miner, self.drawable.get)
        if task.seq in {seqs[turn.at] for turn in turns}:
            return True
        certain = is_certain(spec, task.epoch, owed=self._owed(author, task))
        at = own_segment(spec, facts.block_hash, link, task.epoch, task.miner, len(seqs), certain=certain)
        return at is not None and seqs[at] == task.seq

    def is_hidden(self, task: Task) -> bool:
        """Whether some validator's draw demands a segment that is UNSHOWN as far as this one can tell."""
        if task.audit is not AuditKind.SEGMENT or self.truth(task) is not Outcome.UNSHOWN:
            return False
        facts = self.epochs.get(task.epoch)
        return facts is not None and any(self.is_drawn(author, task) for author in facts.links)

    def _owed(self, author: str, task: Task) -> bool:
        before = self.epochs.get(task.epoch - 1)
        unknown = before is None or not (before.pooled or author == self.own)
        return (unknown and task.epoch > 0) or (author, task.epoch - 1, task.miner) in self.owing


def findings(
    spec: RunSpec,
    own: str,
    epochs: Mapping[int, EpochFacts],
    judgements: Iterable[Judgement],
    earlier: Mapping[int, Drawable] | None = None,
) -> Findings:
    """What all verdicts come to, for the validator `own`. The order of `judgements` does not matter.

    Args:
        epochs: those that this validator knows something of.
        judgements: its own, and those of others, of these epochs.
        earlier: the public draws of epochs before these, as far as they are known. Where one is not, more
            segments count as drawn, never fewer.
    """
    reading = _Reading(spec, own, epochs, judgements, earlier or {})
    # Own verdicts first: the silence that follows from them decides who has a voice where it was absent.
    reading.refute({task: voices[own] for task, voices in reading.voices.items() if own in voices})
    reading.refute({task: reading.truth(task) for task in reading.voices if own not in reading.voices[task]})

    found: dict[Outcome | None, set[MinerEpoch]] = defaultdict(set)
    passed: set[MinerEpoch] = set()
    decided: set[MinerEpoch] = set()
    hidden: set[MinerEpoch] = set()
    for task, voices in reading.voices.items():
        at = (task.epoch, task.miner)
        found[reading.truth(task)].add(at)
        counting = {
            author
            for author, outcome in voices.items()
            if outcome is Outcome.PASS
            and (author == own or not reading.silenced(author, task.epoch))
            and reading.is_drawn(author, task)
        }
        if counting:
            passed.add(at)
        if own in counting:
            decided.add(at)
        if reading.is_hidden(task):
            hidden.add(at)
    worked = [(n, miner) for n, facts in epochs.items() for miner, seqs in facts.segments.items() if seqs]
    count = hidden_epochs(spec.window_epochs, spec.audit.extra_every)
    before = with_epochs_before(hidden, worked, count)
    return Findings(
        passed=frozenset(passed),
        undelivered=frozenset(found[Outcome.UNDELIVERED]),
        revoked=frozenset(found[Outcome.REVOKED]),
        failed=frozenset(found[Outcome.FAIL]),
        undecided=frozenset((reading.undecided - decided) | before),
        silenced={v: tuple(sorted(epochs)) for v, epochs in sorted(reading.refuted.items())},
    )
