"""The validator's core: facts in, effects out, from the join to the run's end. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final

from iota.protocol.events import AuditsClosed, EpochClose, EvidenceMissed, EvidenceReady, RunEnd
from iota.protocol.messages import Reveal
from iota.spec import RunSpec
from validator.core import effects
from validator.core.accusations import Accusations, task_of
from validator.core.effects import Effect, Say
from validator.core.epoch import EpochAudit
from validator.core.facts import Accused, Done, Expired, Fact, Failed, Tick
from validator.core.history import History
from validator.core.jobs import Job, Script, Wait
from validator.core.links import LinkChain
from validator.core.pooling import Pooling

FILING_SHARE: Final = 0.9
"""Share of the audit deadline after which unfinished audits are filed as inconclusive. The rest of the
time is for the reports to arrive."""

_IDLE: Final = "no epoch to audit"


class ValidatorCore:
    """One membership of a validator: audits sealed epochs in turn, or repeats the verdicts of audited ones.

    Facts may come late, repeated and in any order. The core has no clock; `now` is monotonic seconds. It
    runs one script at a time, which waits for one job at a time or for evidence: accusations in audited
    epochs first, then the verdicts of others on closed epochs, then the audits of the next sealed epoch.
    """

    def __init__(self, spec: RunSpec, own: str, links: LinkChain, history: History) -> None:
        """`own` is the validator's hotkey."""
        self._spec, self._own, self._links, self._history = spec, own, links, history
        self._seals: deque[tuple[EpochClose, float]] = deque()
        """Seals of later epochs, each with the time at which it was received."""
        self._closed: set[int] = set()
        self._run_over = self._ended = False
        self._effects: list[Effect] = []
        self._accusations: defaultdict[int, Accusations] = defaultdict(Accusations)
        self._audited: dict[int, tuple[EpochAudit, float]] = {}
        """Epochs whose verdicts are filed and whose audits are open, and when their seals were received."""
        self._to_pool: set[int] = set()
        """Closed epochs of which the verdicts of others are to be fetched."""
        self._epoch: EpochAudit | None = None
        self._received = 0.0
        """When the seal of `_epoch` was received."""
        self._pooling: Pooling | None = None
        self._script: Script[None] | None = None
        self._jobs = 0
        self._running: int | None = None
        """Number of the job that the script waits for. An answer with another number is stale."""
        self._waiting = False
        """Whether the script waits for evidence instead of a job."""

    @property
    def activity(self) -> str:
        """The current work in words, for the status line."""
        work = self._epoch or self._pooling
        waits = "; it waits for the miner's evidence" if self._waiting else ""
        return _IDLE if work is None else work.activity + waits

    @property
    def wake_at(self) -> float | None:
        """The time at which the core needs a Tick; None if it needs none before the next fact."""
        times = [self._closes(received) for _, received in self._audited.values()]
        if self._epoch is not None and self._epoch.expires:
            times.append(self._deadline)
        return min(times, default=None)

    def take(self, fact: Fact, now: float) -> list[Effect]:
        """The effects of a fact, in order. After the end there are none."""
        if self._ended:
            return []
        epoch = self._epoch
        match fact:
            case EpochClose() | AuditsClosed() if fact.epoch >= self._spec.schedule.epochs:
                self._emit(effects.Log(f"the orchestrator names epoch {fact.epoch}, which the run has not"))
            case EpochClose():
                self._queue(fact, now)
            case AuditsClosed():
                self._closed.add(fact.epoch)
                if epoch is not None and epoch.epoch == fact.epoch:
                    self._expire(epoch)
                self._close(fact.epoch)
            case EvidenceReady() | EvidenceMissed():
                if epoch is not None and epoch.epoch == fact.epoch:
                    epoch.deliveries.decide(fact)
                    if self._waiting:
                        self._resume(None)
                elif fact.epoch in self._audited:
                    self._audited[fact.epoch][0].deliveries.decide(fact)
            case Accused():
                self._hear(fact)
            case RunEnd():
                self._run_over = True
                for audited in list(self._audited):
                    self._close(audited)
            case Done() | Failed() if fact.number == self._running:
                self._resume(fact.answer if isinstance(fact, Done) else fact.error)
            case Tick():
                self._tick(now)
        self._advance()
        taken, self._effects = self._effects, []
        return taken

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _tick(self, now: float) -> None:
        if self._epoch is not None and now >= self._deadline:
            self._expire(self._epoch)
        for number, (_, received) in list(self._audited.items()):
            if now >= self._closes(received):
                self._close(number)

    # ---- the script under way ------------------------------------------------------------------

    @property
    def _deadline(self) -> float:
        return self._received + self._spec.audit.deadline_s * FILING_SHARE

    def _closes(self, received: float) -> float:
        """When the audits of an epoch are closed at the latest, whatever the orchestrator says."""
        return received + self._spec.audit.deadline_s

    def _expire(self, epoch: EpochAudit) -> None:
        """End the audits of the epoch, unless its verdicts are filed already."""
        if not epoch.expires:
            return
        epoch.expires = False
        if self._running is not None:
            self._emit(effects.Stop())
        self._resume(Expired())

    def _resume(self, answer: object) -> None:
        """Run the script to its next job, wait or end. An exception as `answer` is thrown into it."""
        assert self._script is not None
        self._running, self._waiting = None, False
        try:
            step = self._next_step(answer)
        except StopIteration:
            self._finish()
            return
        if isinstance(step, Wait):
            self._waiting = True
        else:
            self._jobs += 1
            self._running = self._jobs
            self._emit(effects.Start(self._jobs, step))

    def _next_step(self, answer: object) -> Job | Wait:
        """Raises StopIteration when the script ends."""
        assert self._script is not None
        return self._script.throw(answer) if isinstance(answer, Exception) else self._script.send(answer)

    def _finish(self) -> None:
        epoch, self._epoch, self._pooling, self._script = self._epoch, None, None, None
        if epoch is not None and epoch.epoch in self._history.audited:
            self._audited[epoch.epoch] = epoch, self._received
            if epoch.epoch in self._closed or self._run_over:
                self._close(epoch.epoch)
        self._emit(effects.Explain())

    # ---- what others say -----------------------------------------------------------------------

    def _hear(self, fact: Accused) -> None:
        """Take an accusation. In an audited epoch it is answered at once, or examined first."""
        number = fact.accusation.verdict.epoch
        miner, name = task_of(fact.accusation)
        known = (number, miner, name) in self._history.filed
        self._accusations[number].add(fact.accusation, counts=fact.signed and not known)
        if number in self._audited and not self._accusations[number].any_open:
            self._audited[number][0].say_done()

    def _close(self, number: int) -> None:
        """The audits of an epoch are closed: now its public verdicts are all there."""
        self._audited.pop(number, None)
        self._accusations.pop(number, None)
        if number not in self._history.pooled:
            self._to_pool.add(number)

    # ---- scripts to come -----------------------------------------------------------------------

    def _queue(self, seal: EpochClose, now: float) -> None:
        known = {waiting.epoch for waiting, _ in self._seals} | self._audited.keys()
        if seal.epoch not in known and (self._epoch is None or self._epoch.epoch != seal.epoch):
            self._seals.append((seal, now))

    def _advance(self) -> None:
        """Begin the next script if none is under way; end if there is none left and the run is over."""
        while self._script is None and self._begin_next():
            pass
        if self._run_over and self._script is None and not self._ended:
            self._ended = True
            self._emit(effects.End())

    def _begin_next(self) -> bool:
        """Begin a script, or find that one is not needed. False if nothing is left to begin."""
        accused = next((n for n in self._audited if self._accusations[n].any_open), None)
        if accused is not None:
            epoch, received = self._audited.pop(accused)
            self._run(epoch, epoch.examination(), received)
        elif self._to_pool:
            still_open = {seal.epoch for seal, _ in self._seals} | self._audited.keys()
            self._pooling = Pooling(
                self._spec, max(self._to_pool), still_open - self._closed, self._history, self._emit
            )
            self._to_pool.clear()
            self._script = self._pooling.script()
            self._resume(None)
        elif self._seals:
            seal, received = self._seals.popleft()
            if seal.epoch not in self._closed:
                self._begin(seal, received)
        else:
            return False
        return True

    def _begin(self, seal: EpochClose, received: float) -> None:
        link = self._links.link(seal.epoch)
        accusations = self._accusations[seal.epoch]
        epoch = EpochAudit(self._spec, seal, self._own, link, self._history, accusations, self._emit)
        if seal.epoch not in self._history.audited:
            self._run(epoch, epoch.script(), received)
            return
        self._emit(Say(Reveal(epoch=seal.epoch, link=link)))
        self._emit(effects.RepeatVerdicts(seal.epoch))
        epoch.say_done()
        self._audited[seal.epoch] = epoch, received
        if self._run_over:
            self._close(seal.epoch)

    def _run(self, epoch: EpochAudit, script: Script[None], received: float) -> None:
        self._epoch, self._received, self._script = epoch, received, script
        epoch.expires = True
        self._resume(None)
