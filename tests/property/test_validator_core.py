"""The validator's core under any order of facts: lost fetches, repeats, closings, deadlines and restarts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from iota.protocol.events import AuditsClosed, EpochClose, RunEnd
from iota.protocol.messages import AuditKind, Outcome
from tests.support.validator_shells import EPOCHS, Shell, drawn, run
from validator.core.facts import Tick


class CoreMachine(RuleBasedStateMachine):
    """Everything that may befall a validator, in any order."""

    @initialize()
    def start(self) -> None:
        self.shell = Shell()
        self.closed: set[int] = set()
        self.accused: Counter[int] = Counter()
        self.sealed = 0
        self.run_over = False

    @property
    def seals(self) -> list[EpochClose]:
        return [run()[0].seal_of(epoch) for epoch in range(self.sealed)]

    @precondition(lambda self: self.sealed < EPOCHS and not self.run_over)
    @rule()
    def seal(self) -> None:
        self.sealed += 1
        self.shell.on_event(self.seals[-1])

    @precondition(lambda self: self.shell.job is not None)
    @rule(count=st.integers(1, 12))
    def jobs_succeed(self, count: int) -> None:
        for _ in range(count):
            if self.shell.job is not None:
                self.shell.answer(self.shell.good(self.shell.job.job))

    @precondition(lambda self: self.shell.job is not None)
    @rule(choice=st.integers(0, 11))
    def a_job_fails(self, choice: int) -> None:
        assert self.shell.job is not None
        self.shell.answer(self.shell.bad(self.shell.job.job, choice))

    @precondition(lambda self: self.shell.wanted)
    @rule(data=st.data())
    def a_snapshot_comes(self, data: st.DataObject) -> None:
        self.shell.deliver(data.draw(st.sampled_from(sorted(self.shell.wanted))))

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def a_seal_is_repeated(self, data: st.DataObject) -> None:
        if not self.shell.ended:
            self.shell.take(data.draw(st.sampled_from(self.seals)))

    @precondition(lambda self: self.shell.stale and not self.shell.ended)
    @rule(data=st.data())
    def an_old_answer_is_repeated(self, data: st.DataObject) -> None:
        before = self.shell.job
        self.shell.take(data.draw(st.sampled_from(self.shell.stale)))
        assert self.shell.job is before

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def audits_are_closed(self, data: st.DataObject) -> None:
        epoch = data.draw(st.integers(0, self.sealed - 1))
        self.closed.add(epoch)
        self.shell.on_event(AuditsClosed(epoch=epoch))

    @precondition(lambda self: self.sealed and not self.shell.ended)
    @rule(
        data=st.data(),
        seq=st.integers(1, 14),
        stage=st.integers(0, 2),
        audit=st.sampled_from(AuditKind),
        outcome=st.sampled_from([Outcome.FAIL, Outcome.UNDELIVERED]),
        signed=st.booleans(),
    )
    def another_validator_accuses(
        self, data: st.DataObject, seq: int, stage: int, audit: AuditKind, outcome: Outcome, signed: bool
    ) -> None:
        epoch = data.draw(st.integers(0, self.sealed - 1))
        self.accused[epoch] += 1
        self.shell.accuse(seq, epoch=epoch, stage=stage, audit=audit, outcome=outcome, signed=signed)

    @rule(seconds=st.floats(0, 60))
    def time_passes(self, seconds: float) -> None:
        self.shell.now += seconds
        self.shell.take(Tick())

    @rule()
    def the_process_starts_again(self) -> None:
        self.shell.restart()

    @rule()
    def the_run_ends(self) -> None:
        self.run_over = True
        self.shell.on_event(RunEnd())

    def teardown(self) -> None:
        """From here on everything goes well: whatever is still open comes to its end."""
        if not hasattr(self, "shell"):
            return
        if not self.run_over:
            self.the_run_ends()
        for _ in range(10_000):
            if self.shell.ended:
                break
            if self.shell.job is not None:
                self.shell.answer(self.shell.good(self.shell.job.job))
            else:
                self.shell.wake()
        assert self.shell.ended
        for epoch in self.shell.audited:
            assert drawn(epoch) <= set(self.shell.kept)
            assert epoch in self.shell.asked, "others' verdicts are asked for before scores"


CoreMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyOrderOfFacts: Any = CoreMachine.TestCase
