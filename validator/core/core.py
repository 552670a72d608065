"""The validator's core: facts in, effects out, from the join to the run's end. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from iota.protocol.events import AuditsClosed, EpochClose, RunEnd, SnapshotReady
from iota.protocol.messages import AuditsDone, Reveal
from iota.spec import RunSpec
from validator.core import effects
from validator.core.effects import Effect, Say
from validator.core.epoch import EpochAudit
from validator.core.facts import Done, Expired, Fact, Failed, Tick
from validator.core.history import History
from validator.core.jobs import Job, Script, Wait
from validator.core.links import LinkChain

FILING_SHARE: Final = 0.9
"""Share of the audit deadline after which unfinished audits are filed as inconclusive. The rest of the
time is for the reports to arrive."""

_IDLE: Final = "no epoch to audit"


class ValidatorCore:
    """One membership of a validator: audits sealed epochs in turn, or repeats the verdicts of audited ones.

    Facts may come late, repeated and in any order. The core has no clock; `now` is monotonic seconds. It
    runs the script of one epoch at a time, which waits for one job at a time or for a snapshot.
    """

    def __init__(self, spec: RunSpec, links: LinkChain, history: History) -> None:
        self._spec, self._links, self._history = spec, links, history
        self._seals: deque[tuple[EpochClose, float]] = deque()
        """Seals of later epochs, each with the time at which it was received."""
        self._closed: set[int] = set()
        self._run_over = self._ended = False
        self._effects: list[Effect] = []
        self._epoch: EpochAudit | None = None
        self._script: Script[None] | None = None
        self._deadline = 0.0
        self._jobs = 0
        self._running: int | None = None
        """Number of the job that the script waits for. An answer with another number is stale."""
        self._wait_until: float | None = None
        """Set while the script waits for a snapshot instead of a job."""

    @property
    def activity(self) -> str:
        """The current work in words, for the status line."""
        return _IDLE if self._epoch is None else self._epoch.activity

    @property
    def wake_at(self) -> float | None:
        """The time at which the core needs a Tick; None if it needs none before the next fact."""
        expiry = self._deadline if self._epoch is not None and self._epoch.expires else None
        return min((t for t in (expiry, self._wait_until) if t is not None), default=None)

    def take(self, fact: Fact, now: float) -> list[Effect]:
        """The effects of a fact, in order."""
        epoch = self._epoch
        if epoch is not None:
            epoch.snapshots.now = now
        match fact:
            case EpochClose() | AuditsClosed() if fact.epoch >= self._spec.schedule.epochs:
                self._emit(effects.Log(f"the orchestrator names epoch {fact.epoch}, which the run has not"))
            case EpochClose():
                self._queue(fact, now)
            case AuditsClosed():
                self._closed.add(fact.epoch)
                if epoch is not None and epoch.epoch == fact.epoch:
                    self._expire(epoch, now)
            case SnapshotReady():
                if epoch is not None and epoch.epoch == fact.epoch:
                    epoch.snapshots.deliver(fact)
                    if self._wait_until is not None:
                        self._resume(now, False)
            case RunEnd():
                self._run_over = True
            case Done() | Failed() if fact.number == self._running:
                self._resume(now, fact.answer if isinstance(fact, Done) else fact.error)
            case Tick():
                if epoch is not None and now >= self._deadline:
                    self._expire(epoch, now)
                elif self._wait_until is not None and now >= self._wait_until:
                    self._resume(now, True)
        self._advance(now)
        taken, self._effects = self._effects, []
        return taken

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    # ---- the epoch under way -------------------------------------------------------------------

    def _expire(self, epoch: EpochAudit, now: float) -> None:
        """End the audits of the epoch, unless its verdicts are filed already."""
        if not epoch.expires:
            return
        epoch.expires = False
        if self._running is not None:
            self._emit(effects.Stop())
        self._resume(now, Expired())

    def _resume(self, now: float, answer: object) -> None:
        """Run the script to its next job, wait or end. An exception as `answer` is thrown into it."""
        assert self._script is not None
        self._running = self._wait_until = None
        try:
            step = self._next_step(answer)
            while isinstance(step, Wait):
                if now < step.until:
                    self._wait_until = step.until
                    return
                step = self._next_step(True)
        except StopIteration:
            self._epoch = self._script = None
            self._emit(effects.Explain())
        else:
            self._jobs += 1
            self._running = self._jobs
            self._emit(effects.Start(self._jobs, step))

    def _next_step(self, answer: object) -> Job | Wait:
        """Raises StopIteration when the script ends."""
        assert self._script is not None
        return self._script.throw(answer) if isinstance(answer, Exception) else self._script.send(answer)

    # ---- epochs to come --------------------------------------------------------------------------

    def _queue(self, seal: EpochClose, now: float) -> None:
        known = {waiting.epoch for waiting, _ in self._seals}
        if seal.epoch not in known and (self._epoch is None or self._epoch.epoch != seal.epoch):
            self._seals.append((seal, now))

    def _advance(self, now: float) -> None:
        """Begin the next epoch if none is under way; end if there is none left and the run is over."""
        while self._epoch is None and self._seals:
            seal, received = self._seals.popleft()
            if seal.epoch not in self._closed:
                self._begin(seal, received + self._spec.audit.deadline_s * FILING_SHARE, now)
        if self._run_over and self._epoch is None and not self._ended:
            self._ended = True
            self._emit(effects.End())

    def _begin(self, seal: EpochClose, deadline: float, now: float) -> None:
        link = self._links.link(seal.epoch)
        if seal.epoch in self._history.audited:
            self._emit(Say(Reveal(epoch=seal.epoch, link=link)))
            self._emit(effects.RepeatVerdicts(seal.epoch))
            self._emit(Say(AuditsDone(epoch=seal.epoch)))
            return
        self._deadline = deadline
        self._epoch = EpochAudit(self._spec, seal, link, self._history, self._emit)
        self._script = self._epoch.script()
        self._resume(now, None)
