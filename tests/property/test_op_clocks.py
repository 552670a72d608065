"""The deadlines of ops: the heaps tell the same as a scan over all members."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from iota.protocol.frames import Direction
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    JoinRequest,
    Role,
)
from iota.simulate.names import digest, fake_hotkey
from orchestrator.coordinator import Coordinator, Entry, Joined, Left, Limits, Lost, Resumed, Returned
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.microbatches import measure, stop_clock
from tests.support.small_spec import small_spec

MEMBERS = 7
"""Three of stage 0, two of each other stage."""
MOVES = 400


class Clocks:
    """Members whose ops begin and end by chance, and who come, go and are late.

    Everything is changed by the coordinator's own entries and functions, so the calls of `OpClocks.arm` are
    its own: after an op is added, after a member is live or not late again, and with `again` after its
    `own_s` or `replay_s` became shorter. Nothing need be called where a deadline only moves on: an op that
    ends or goes to another replica, progress, a lost member, another limit of a stage. Nobody holds the base
    of the last stage, so the run gathers for ever and starts no ops itself.
    """

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        limits = Limits(first_s=2.0, min_s=1.0, max_s=20.0)
        self.coordinator = Coordinator(small_spec(layout={"cuts": [1, 1, 1], "replicas": 1}), limits)
        self.run, self.now = self.coordinator.state, 100.0
        for number in range(MEMBERS):
            self._join(number)
        for member in self.run.members.values():
            self.run.roster.set_ready(member, 0 if member.stage < 2 else -1)

    def move(self) -> None:
        """One random change."""
        self.chance.choice(
            [self.wait, self.start, self.start, self.end, self.say, self.come_or_go, self.rare]
        )()

    def rare(self) -> None:
        """One change of those that come seldom."""
        self.chance.choice(
            [self.join, self.join, self.stall, self.stall, self.learn, self.resume, self.turn]
        )()

    def wait(self) -> None:
        """Time passes."""
        self.now += self.chance.choice([0.0, 1.0, 1.0, 3.0, 8.0])
        self.run.now = self.now

    # ---- ops ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """The inputs of an op are there."""
        op = (0, self.chance.randrange(3), self.chance.choice(list(Direction)))
        self.run.start_clock(self._someone(), op)

    def end(self) -> None:
        """An op ends, or goes to another replica."""
        member = self._someone()
        for op in self.chance.sample(list(member.pending), min(1, len(member.pending))):
            if self.chance.random() < 0.5:
                stop_clock(self.run, member, *op)
            else:
                del member.pending[op]

    def say(self) -> None:
        """A receipt of an op whose frame is not stored yet."""
        member = self._someone()
        self.run.current.receipts[member.hotkey].append(digest(member.hotkey))
        for op in list(member.pending)[:1]:
            measure(self.run, member, *op)

    def learn(self) -> None:
        """A stage's ops take another time from now on."""
        stage, seconds = self.chance.randrange(2), self.chance.choice([0.5, 5.0, 15.0])
        for _ in range(64):
            self.run.deadlines.ops[stage].add(seconds)

    def turn(self) -> None:
        """All ops of the epoch have ended, and the next begins."""
        self.run.current.receipts.clear()
        for member in self.run.members.values():
            member.pending.clear()

    # ---- members -----------------------------------------------------------------------------------

    def _someone(self) -> Member:
        return self.run.members[fake_hotkey(self.chance.randrange(MEMBERS))]

    def _apply(self, entry: Entry) -> None:
        self.coordinator.apply(entry)
        assert not self.run.incidents.internal, self.run.incidents.internal[0]

    def _join(self, number: int, epoch: int | None = None) -> None:
        device = Capabilities(device="test", memory=1, flops=1.0)
        request = JoinRequest(role=Role.MINER, versions=(PROTOCOL_VERSION,), capabilities=device, epoch=epoch)
        self._apply(Joined(at=self.now, hotkey=fake_hotkey(number), request=request))

    def join(self) -> None:
        """A member restarts, mostly from its disk."""
        member = self._someone()
        self._join(member.order, self.chance.choice([0, 0, 0, None]))
        self.run.roster.set_ready(member, 0 if member.stage < 2 else -1)

    def come_or_go(self) -> None:
        """A member is lost, leaves, or is back."""
        how = self.chance.choice(
            [Lost, Returned, Returned, Left] if self.chance.random() < 0.3 else [Returned]
        )
        member = self._someone()
        if how is not Returned or not member.live:
            self._apply(how(at=self.now, hotkey=member.hotkey))

    def stall(self) -> None:
        """As with a Tick."""
        for member in self.run.clocks.overdue(self.run.now).values():
            member.stalled = True
            self.run.look_at(member)

    def resume(self) -> None:
        """The orchestrator restarts."""
        self._apply(Resumed(at=self.now))

    # ---- the claim ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert that the heaps tell what a scan does."""
        times = [(h, t) for h, m in self.run.members.items() if (t := self._deadline(m)) is not None]
        now = self.run.now
        assert self.run.clocks.next_due(now) == min((t for _, t in times if t > now), default=None)
        assert self.run.clocks.overdue(now).keys() == {hotkey for hotkey, time in times if now > time}

    def _deadline(self, member: Member) -> float | None:
        """By the definition: that of the first of its ops to be due."""
        if not member.live or member.stalled:
            return None
        allowed = max(self.run.deadlines.ops[member.stage].seconds, member.own_s, member.replay_s)
        starts = (max(since, member.last_progress) for since in member.pending.values())
        return min((start + allowed for start in starts), default=None)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), looks=st.sampled_from([1.0, 0.3, 0.05]))
def test_the_heaps_tell_what_a_scan_over_all_members_tells(seed: int, looks: float) -> None:
    clocks = Clocks(seed)
    for _ in range(MOVES):
        clocks.move()
        if clocks.chance.random() < looks:  # a heap that is looked at seldom has more that is out of date
            clocks.check()
