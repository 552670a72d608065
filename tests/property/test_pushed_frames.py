"""A replica whose frames come in any order, from anybody, by links and by the store: what its ops read."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from iota.protocol.events import Drop, Reroute
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import BadValue, FrameMissing
from iota.protocol.receipts import OpKind
from iota.wire.expectation import Expectation
from miner.core.core import ReplicaCore
from miner.core.effects import DenyFrame, Effect, FetchFrame, FindFrames, RunOp, Say
from miner.core.facts import FrameArrived, FramesSought, OpBad, OpDone, OpLaunched, Pushed
from miner.core.schedule import Op
from tests.support.pushed import activations, digest_of, gradient, header_of, ready
from tests.support.replica_cores import FIRST, LAST, ME, OTHER, hear, made, plan, resumed, training

PEERS = (FIRST, LAST, OTHER)
MICROBATCHES = 3
Beside = tuple[int, int]
"""(microbatch, stage) of a neighbour."""


class World:
    """What the orchestrator has said, what lies where, and the replica in its midst."""

    def __init__(self, chance: random.Random, *, restarted: bool) -> None:
        self.chance = chance
        self.core: ReplicaCore = resumed() if restarted else training()
        self.given: dict[Beside, dict[int, str]] = {}
        self.now: dict[Beside, int] = {}
        """The attempt whose frame is expected."""
        self.attempts = [0] * MICROBATCHES
        self.stored: dict[FrameName, int] = {}
        """Frames in the store, and their content."""
        self.inputs: dict[tuple[int, Direction], tuple[FrameName, bool]] = {}
        """By microbatch: the frame, and whether the store is known to have it."""
        self.on_disk: dict[FrameName, tuple[str, int]] = {}
        self.fetches: list[FetchFrame] = []
        self.launching: Op | None = None
        self.unrecorded: list[Op] = []
        self.mine = set[int]()

    def plan(self) -> None:
        self.mine = set(range(MICROBATCHES))
        for index in self.mine:
            for stage, who in ((0, FIRST), (2, LAST)):
                self.given[index, stage], self.now[index, stage] = {0: who}, 0
        self.do(hear(self.core, plan()))

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case RunOp(op):
                    self.begins(op)
                case FetchFrame():
                    assert effect.notice.name in self.stored
                    self.fetches.append(effect)
                case DenyFrame(name):
                    self.on_disk.pop(name, None)
                    self.inputs.pop((name.microbatch, name.direction), None)
                case FindFrames(frames):
                    for name, sender in frames:
                        if name in self.on_disk and self.on_disk[name][0] == sender:
                            self.arrives(name, Pushed(sender, digest_of(name, self.on_disk[name][1])))
                    self.do(self.core.take(FramesSought(tuple(name for name, _ in frames))))
                case Say(reports=reports):
                    for report in reports:
                        self.says(report)
                case _:
                    pass

    def says(self, report: object) -> None:
        if isinstance(report, FrameMissing):
            at = (report.name.microbatch, report.name.stage)
            assert self.now[at] == report.name.attempt, "nobody but who has the attempt can store it"
        elif isinstance(report, BadValue) and report.microbatch in self.mine:
            for direction in Direction:
                if (used := self.inputs.get((report.microbatch, direction))) is not None:
                    name = used[0]
                    now = name.model_copy(update={"attempt": self.now[name.microbatch, name.stage]})
                    readable = used[1] or name in self.stored or now in self.stored
                    assert readable, "a word on what nobody can read"

    def begins(self, op: Op) -> None:
        self.launching = op
        for direction in Direction if op.kind is OpKind.BACKWARD else (Direction.FORWARD,):
            if op.kind is not OpKind.STEP:
                name, _ = self.inputs[op.microbatch, direction]
                assert name.direction is direction
                assert name.attempt in self.given[op.microbatch, name.stage], "its receipt would be refused"

    def arrives(self, name: FrameName, pushed: Pushed | None) -> None:
        fact = FrameArrived(name, pushed)
        if self.core.reads(fact):
            assert name.microbatch in self.mine or self.core.resumed
            assert (
                pushed is None or self.given[name.microbatch, name.stage].get(name.attempt) == pushed.sender
            )
            self.inputs[name.microbatch, name.direction] = name, pushed is None
        self.do(self.core.take(fact))

    # ---- what happens --------------------------------------------------------------------------

    def step(self) -> None:
        chance = self.chance
        actions = [self.push, self.push, self.announce, self.fetched, self.run, self.run, self.reroute]
        chance.choice(actions if self.given else [self.plan, self.push])()

    def some_name(self) -> FrameName:
        make = self.chance.choice((activations, gradient))
        return make(self.chance.randrange(MICROBATCHES), self.chance.choice((0, 0, 0, 1, 2, 3)))

    def push(self) -> None:
        """Somebody pushes something, perhaps twice."""
        name, sender, content = self.some_name(), self.chance.choice(PEERS), self.chance.randrange(2)
        at = (name.microbatch, name.stage)
        found = self.core.expects(header_of(name, sender))
        if found is Expectation.EXPECTED:
            assert self.given[at][name.attempt] == sender
            assert self.now[at] == name.attempt
            assert name.microbatch in self.mine
        elif self.chance.random() < 0.8:
            return  # at the door
        held = self.on_disk.setdefault(name, (sender, content))
        if held[0] == sender:
            self.arrives(name, Pushed(sender, digest_of(name, held[1])))

    def announce(self) -> None:
        """A sender has stored its frame, perhaps another one than it pushed."""
        name = self.some_name()
        sender = self.given.get((name.microbatch, name.stage), {}).get(name.attempt)
        if sender is not None and self.now[name.microbatch, name.stage] == name.attempt:
            content = self.stored.setdefault(name, self.chance.randrange(2))
            self.do(hear(self.core, ready(name, sender, content)))

    def fetched(self) -> None:
        if self.fetches:
            effect = self.fetches.pop(self.chance.randrange(len(self.fetches)))
            name, content = effect.notice.name, self.stored[effect.notice.name]
            first = self.on_disk.setdefault(name, (effect.sender, content))
            same = first == (effect.sender, content)
            self.arrives(name, None if same else Pushed(first[0], digest_of(name, first[1])))

    def run(self) -> None:
        if self.launching is not None:
            op, self.launching = self.launching, None
            self.unrecorded.append(op)
            self.do(self.core.take(OpLaunched(op)))
        elif self.unrecorded:
            op = self.unrecorded.pop(0)
            bad = self.chance.random() < 0.3
            self.do(self.core.take(OpBad(op) if bad else OpDone(op, made(self.core, op.microbatch))))

    def reroute(self) -> None:
        """A microbatch goes to another replica at some stage, or is dropped."""
        index = self.chance.randrange(MICROBATCHES)
        stage = self.chance.choice((0, 0, 2, 2, 1))
        if stage == 1:
            if self.chance.random() < 0.5:
                self.mine.discard(index)
                self.do(hear(self.core, Drop(epoch=0, step=0, microbatch=index)))
            return
        if index not in self.mine:
            return
        self.attempts[index] += 1
        attempt, who = self.attempts[index], self.chance.choice(PEERS)
        forward = self.chance.random() < 0.7
        self.given[index, stage][attempt] = who
        if forward or stage == 2:
            self.now[index, stage] = attempt
        event = Reroute(
            epoch=0, step=0, microbatch=index, stage=stage, attempt=attempt, miner=who, replaces=FIRST,
            before=None, after=ME, send_forward=forward,
        )  # fmt: skip
        self.do(hear(self.core, event))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), restarted=st.booleans())
def test_ops_read_only_what_their_senders_were_given_and_words_only_what_can_be_read(
    seed: int, restarted: bool
) -> None:
    world = World(random.Random(seed), restarted=restarted)
    for _ in range(120):
        world.step()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_once_all_frames_have_come_by_either_way_every_microbatch_runs(seed: int) -> None:
    chance = random.Random(seed)
    world = World(chance, restarted=chance.random() < 0.5)
    names = [make(index) for index in range(MICROBATCHES) for make in (activations, gradient)]
    early = [name for name in names if world.core.expects(header_of(name)) is not Expectation.EARLY]
    assert early == []
    world.plan()
    chance.shuffle(names)
    for name in names * 2:
        sender = world.given[name.microbatch, name.stage][0]
        if chance.random() < 0.5 and world.core.expects(header_of(name, sender)) is Expectation.EXPECTED:
            world.on_disk.setdefault(name, (sender, 0))
            world.arrives(name, Pushed(sender, digest_of(name)))
        else:
            world.stored[name] = 0
            world.do(hear(world.core, ready(name, sender)))
            while world.fetches:
                world.fetched()
    ran = []
    while world.launching is not None or world.unrecorded:
        if world.launching is not None:
            world.run()
            continue
        op = world.unrecorded.pop(0)
        ran.append((op.kind, op.microbatch))
        world.do(world.core.take(OpDone(op, made(world.core, op.microbatch))))
    assert sorted(ran) == sorted(
        (kind, index) for kind in (OpKind.FORWARD, OpKind.BACKWARD) for index in range(MICROBATCHES)
    )
