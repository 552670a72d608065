"""The deadlines of ops: the heaps tell the same as a scan over all members."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from iota.protocol.messages import PROTOCOL_VERSION, Capabilities, Direction, JoinRequest, Role
from iota.simulate.names import digest, fake_hotkey
from orchestrator.coordinator import Coordinator, Entry, Joined, Left, Limits, Lost, Resumed, Returned
from orchestrator.coordinator.member import Member, PendingKey
from orchestrator.coordinator.microbatches import measure, stop_clock
from tests.support.small_spec import small_spec

MEMBERS = 4
PAUSES = st.sampled_from([0.0, 1.0, 1.0, 3.0, 8.0, 30.0])
OPS = st.tuples(st.just(0), st.integers(0, 1), st.sampled_from(Direction))
WHO = st.sampled_from([0, 0, 0, 3, 3, 3, 1, 2])
"""Mostly the two of one stage, which share a heap."""
AT = st.sampled_from([0, 0, 1, 2])
"""Which of a member's ops, the oldest first."""


class Clocks(RuleBasedStateMachine):
    """Members of three stages whose ops begin and end while members come, go and are late.

    Nobody holds the base of the last stage, so the run gathers for ever, and only the rules start ops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.always = False
        limits = Limits(first_s=2.0, min_s=1.0, max_s=20.0)
        self.coordinator = Coordinator(small_spec(layout={"cuts": [1, 1, 1], "replicas": 1}), limits)
        self.run, self.now = self.coordinator.state, 100.0
        for number in range(MEMBERS):
            self._join(number)
        for member in self.run.members.values():
            if member.stage < 2:
                self.run.roster.set_ready(member, 0)
            member.op_seconds = 1.5 * (1 + member.order)
            self._compute(member)

    def _compute(self, member: Member) -> None:
        """The member has receipts of the epoch, so a restart would take it a while."""
        self.run.current.receipts[member.hotkey].append(digest(member.hotkey))

    def _apply(self, entry: Entry) -> None:
        self.coordinator.apply(entry)
        assert not self.run.incidents.internal, self.run.incidents.internal[0]

    def _join(self, number: int, epoch: int | None = None) -> None:
        device = Capabilities(device="test", memory=1, flops=1.0)
        request = JoinRequest(role=Role.MINER, versions=(PROTOCOL_VERSION,), capabilities=device, epoch=epoch)
        self._apply(Joined(at=self.now, hotkey=fake_hotkey(number), request=request))

    def _member(self, number: int) -> Member:
        return self.run.members[fake_hotkey(number)]

    @rule(seconds=PAUSES)
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.run.now = self.now

    # ---- ops ---------------------------------------------------------------------------------------

    @rule(number=WHO, op=OPS)
    def start(self, number: int, op: PendingKey) -> None:
        self.run.start_clock(self._member(number), op)

    @rule(number=WHO, at=AT)
    def withdraw(self, number: int, at: int) -> None:
        pending = self._member(number).pending
        for op in list(pending)[at : at + 1]:  # it goes to another replica, or its microbatch ends
            del pending[op]

    @rule(number=WHO, at=AT)
    def end(self, number: int, at: int) -> None:
        member = self._member(number)
        for op in list(member.pending)[at : at + 1]:
            stop_clock(self.run, member, *op)

    @rule(number=WHO, at=AT, times=st.integers(1, 10))
    def receipt(self, number: int, at: int, times: int) -> None:
        member = self._member(number)
        self._compute(member)
        for op in list(member.pending)[at : at + 1]:
            for _ in range(times):
                measure(self.run, member, *op)

    @rule()
    def begin_an_epoch(self) -> None:
        self.run.current.receipts.clear()
        for member in self.run.members.values():
            member.pending.clear()

    @rule(stage=st.integers(0, 1), seconds=st.sampled_from([0.5, 5.0, 15.0]))
    def learn(self, stage: int, seconds: float) -> None:
        for _ in range(8):
            self.run.deadlines.ops[stage].add(seconds)

    # ---- members -----------------------------------------------------------------------------------

    @rule()
    def stall(self) -> None:
        for member in self.run.clocks.overdue(self.run.now).values():  # as with a Tick
            member.stalled = True
            self.run.look_at(member)

    @rule(number=WHO, how=st.sampled_from([Lost, Left, Returned]))
    def come_or_go(self, number: int, how: type[Lost | Left | Returned]) -> None:
        self._apply(how(at=self.now, hotkey=fake_hotkey(number)))

    @rule(number=WHO, fresh=st.booleans())
    def join(self, number: int, fresh: bool) -> None:
        self._join(number, None if fresh else 0)
        if fresh and self._member(number).stage < 2:
            self.run.roster.set_ready(self._member(number), 0)

    @rule()
    def resume(self) -> None:
        self._apply(Resumed(at=self.now))

    # ---- the claim ---------------------------------------------------------------------------------

    def _deadline(self, member: Member) -> float | None:
        """By the definition: of the first of its ops to be due."""
        if not member.live or member.stalled:
            return None
        allowed = max(self.run.deadlines.ops[member.stage].seconds, member.replay_s)
        starts = (max(since, member.last_progress) for since in member.pending.values())
        return min((start + allowed for start in starts), default=None)

    def _deadlines(self) -> dict[str, float]:
        times = {hotkey: self._deadline(member) for hotkey, member in self.run.members.items()}
        return {hotkey: time for hotkey, time in times.items() if time is not None}

    @initialize(always=st.booleans())
    def ask_always(self, always: bool) -> None:
        self.always = always

    @invariant()
    def agree(self) -> None:
        if self.always:
            self.ask_when_the_next_is_due()
            self.ask_who_is_overdue()

    @rule()
    def ask_who_is_overdue(self) -> None:
        late = {hotkey for hotkey, time in self._deadlines().items() if self.run.now > time}
        assert self.run.clocks.overdue(self.run.now).keys() == late

    @rule()
    def ask_when_the_next_is_due(self) -> None:
        coming = [time for time in self._deadlines().values() if time > self.run.now]
        assert self.run.clocks.next_due(self.run.now) == min(coming, default=None)


Clocks.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestClocks = Clocks.TestCase
