"""The coordinator, the intake and the miners' core under random joins, losses, delays and repeats."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iota.protocol.bridge import LR_FACTOR, PAUSED, Set, WriteRequest
from iota.protocol.plans import WholePlan
from iota.simulate.names import fake_hotkey
from iota.simulate.swarm import LIMITS, VirtualSwarm
from iota.spec import Overlap, Pipeline
from orchestrator.coordinator import Bridged, Coordinator
from orchestrator.coordinator.epoch_state import Ending, counted_pairs
from orchestrator.coordinator.state import Phase
from tests.support.virtual_runs import tiny_spec

LIMIT_S = 20_000.0


class Books:
    """Checks every epoch before its steps leave memory."""

    def __init__(self, swarm: VirtualSwarm) -> None:
        self.swarm = swarm
        self.seen: set[tuple[int, int]] = set()
        self.ends = {Ending.SETTLED: 0, Ending.DROPPED: 0}

    def look(self) -> None:
        for number, epoch in self.swarm.state.epochs.items():
            for step in epoch.steps[: epoch.closed_steps]:
                if (number, step.number) in self.seen:
                    continue
                self.seen.add((number, step.number))
                spec = self.swarm.spec
                everywhere = set(range(spec.schedule.microbatches))
                for stage in range(spec.layout.stages):
                    counted = [
                        index
                        for key, order in step.order.items()
                        if self.swarm.state.members[key].stage == stage
                        for index, _ in counted_pairs(order)
                    ]
                    assert len(counted) == len(set(counted)), "a stage counted two attempts"
                    everywhere &= set(counted)
                self.ends[Ending.SETTLED] += len(everywhere)
                self.ends[Ending.DROPPED] += spec.schedule.microbatches - len(everywhere)

    def done(self) -> bool:
        self.look()
        return bool(self.swarm.state.run_end_sent)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    stages=st.integers(1, 4),
    replicas=st.integers(1, 3),
    microbatches=st.integers(3, 8),
    steps=st.integers(1, 4),
    pipeline=st.sampled_from(Pipeline),
    credit=st.integers(1, 3),
    heldout=st.integers(0, 4),
    faults=st.lists(
        st.sampled_from(["kill", "fresh", "join", "orchestrator", "slow", "blink", "pause"]), max_size=6
    ),
    nan_rate=st.sampled_from([0.0, 0.0, 0.02]),
    recording=st.sampled_from([0.0, 0.3, 2.0]),
    push_rate=st.sampled_from([0.0, 0.5, 1.0]),
    deny_rate=st.sampled_from([0.0, 0.0, 0.05, 0.5]),
    lose_rate=st.sampled_from([0.0, 0.0, 0.0, 0.05]),
    overlap=st.sampled_from(Overlap),
)
def test_every_microbatch_ends_once_whatever_happens(
    seed: int,
    stages: int,
    replicas: int,
    microbatches: int,
    steps: int,
    pipeline: Pipeline,
    credit: int,
    heldout: int,
    faults: list[str],
    nan_rate: float,
    recording: float,
    push_rate: float,
    deny_rate: float,
    lose_rate: float,
    overlap: Overlap,
) -> None:
    epochs = 2 if overlap is Overlap.NONE else 4
    spec = tiny_spec(
        stages=stages,
        replicas=replicas,
        epochs=epochs,
        steps=steps,
        microbatches=microbatches,
        pipeline=pipeline,
        credit=credit,
        heldout=heldout,
        overlap=overlap,
    )
    swarm = VirtualSwarm(
        spec,
        seed,
        nan_rate=nan_rate,
        recording=recording,
        push_rate=push_rate,
        deny_rate=deny_rate,
        lose_rate=lose_rate,
    )
    for _ in range(stages * replicas):
        swarm.add_miner()
    chance = random.Random(seed)
    for fault in faults:
        swarm.clock.later(chance.uniform(0, 40), lambda fault=fault: _inject(swarm, chance, fault))
    books = Books(swarm)
    swarm.run(books.done, limit_s=LIMIT_S)
    assert sum(books.ends.values()) == epochs * steps * microbatches
    state = swarm.state
    assert state.phase is Phase.FINISHED
    assert (state.totals.settled, state.totals.dropped) == (
        books.ends[Ending.SETTLED],
        books.ends[Ending.DROPPED],
    )
    assert state.totals.tokens == state.totals.settled * spec.data.tokens
    measured = {number: found.microbatches for number, found in state.totals.heldout.items()}
    assert all(0 < count <= heldout for count in measured.values())
    if heldout and not (faults or nan_rate or deny_rate or lose_rate):
        assert measured == dict.fromkeys(range(epochs), heldout)
    again = Coordinator(spec, LIMITS)
    for entry in swarm.entries:
        again.apply(entry)
    again.take_woken(), swarm.coordinator.take_woken()
    assert again.state == state


def set_variable(swarm: VirtualSwarm, name: str, value: bool | float) -> None:
    """The operator sets a variable of the run."""
    write = WriteRequest(request=f"{len(swarm.entries):032x}", ops=(Set(name=name, value=value),))
    swarm.apply(Bridged(at=swarm.now, hotkey=fake_hotkey(99), operator=True, write=write))


def _inject(swarm: VirtualSwarm, chance: random.Random, fault: str) -> None:
    if swarm.state.run_end_sent:
        return
    miners = list(swarm.miners.values())
    victim = chance.choice(miners)
    match fault:
        case "join" if swarm.state.phase is not Phase.FINISHED:
            swarm.add_miner()
        case "orchestrator":
            swarm.restart_orchestrator()
        case "pause":
            set_variable(swarm, PAUSED, True)
            swarm.clock.later(chance.uniform(0.5, 60), lambda: set_variable(swarm, PAUSED, False))
        case "slow":
            victim.device.slowness = chance.uniform(2, 30)
        case "kill" | "fresh" | "blink":
            if victim.alive:
                victim.kill()
                away = chance.uniform(0.1, 3) if fault == "blink" else chance.uniform(10, 60)
                swarm.clock.later(away, lambda: victim.start(fresh=fault == "fresh"))


@pytest.mark.parametrize("pipeline", list(Pipeline))
def test_undisturbed_sums_follow_the_plan_whatever_the_timing(pipeline: Pipeline) -> None:
    orders = []
    for seed in range(5):
        spec = tiny_spec(stages=3, replicas=2, epochs=1, steps=3, microbatches=6, pipeline=pipeline, credit=2)
        swarm = VirtualSwarm(spec, seed, latency_s=0.1 * (seed + 1), recording=0.5 * seed)
        for _ in range(6):
            swarm.add_miner()
        swarm.run(lambda swarm=swarm: swarm.state.run_end_sent, limit_s=LIMIT_S)
        for miner in swarm.miners.values():
            for step in miner.applied:
                assert step.counted == step.ran == tuple(sorted(step.ran))
        orders.append({k: [(s.epoch, s.step) for s in m.applied] for k, m in swarm.miners.items()})
    assert all(order == orders[0] for order in orders[1:])


def test_a_lost_replica_is_replaced_and_the_epoch_ends_without_it() -> None:
    spec = tiny_spec(
        stages=2, replicas=2, epochs=1, steps=3, microbatches=8, pipeline=Pipeline.DELAYED, credit=2
    )
    swarm = VirtualSwarm(spec, 1)
    for _ in range(4):
        swarm.add_miner()
    swarm.run(lambda: swarm.state.totals.settled > 3, limit_s=LIMIT_S)
    victim = swarm.miners[next(m.hotkey for m in swarm.state.miners(1))]
    victim.kill()
    swarm.run(lambda: swarm.state.run_end_sent, limit_s=LIMIT_S)
    assert swarm.state.totals.rerouted > 0
    assert swarm.state.totals.settled == 3 * 8


def test_a_paused_run_ends_its_planned_steps_rests_and_goes_on() -> None:
    spec = tiny_spec(
        stages=2, replicas=2, epochs=2, steps=6, microbatches=4, pipeline=Pipeline.DELAYED, credit=2
    )
    swarm = VirtualSwarm(spec, 1)
    for _ in range(4):
        swarm.add_miner()
    swarm.run(lambda: swarm.state.totals.settled > 3, limit_s=LIMIT_S)
    set_variable(swarm, PAUSED, True)
    planned = len(swarm.state.current.steps)
    swarm.run(lambda: swarm.state.current.closed_steps == planned, limit_s=LIMIT_S)
    assert "paused" in swarm.coordinator.status()["waiting"]
    rested = swarm.now + 1000.0
    swarm.run(lambda: swarm.now > rested, limit_s=LIMIT_S)
    assert len(swarm.state.current.steps) == planned
    assert not any(m.stalled or m.withdrawn for m in swarm.state.members.values())
    set_variable(swarm, LR_FACTOR, 0.5)
    set_variable(swarm, PAUSED, False)
    plans: list[WholePlan] = []

    def ended() -> bool:
        plans.extend(swarm.coordinator.take_plans())
        return swarm.state.run_end_sent

    swarm.run(ended, limit_s=LIMIT_S)
    assert swarm.state.totals.settled == 2 * 6 * 4
    assert not any(m.stalled or m.withdrawn for m in swarm.state.members.values())
    full, half = spec.learning_rate(0, 0), spec.learning_rate(0, 0) / 2
    rates = [plan.learning_rate for plan in plans]
    assert rates == [full] * planned + [half] * (2 * 6 - planned)


def test_a_stage_without_replicas_pauses_the_run_and_says_so() -> None:
    spec = tiny_spec(
        stages=2, replicas=1, epochs=1, steps=2, microbatches=4, pipeline=Pipeline.SYNC, credit=2
    )
    swarm = VirtualSwarm(spec, 2)
    swarm.add_miner()
    victim = swarm.add_miner()
    swarm.run(lambda: swarm.state.totals.settled > 1, limit_s=LIMIT_S)
    victim.kill()
    swarm.run(lambda: swarm.coordinator.status()["waiting"] is not None, limit_s=LIMIT_S)
    assert "stage 1 has no replica" in swarm.coordinator.status()["waiting"]
    victim.start()
    swarm.run(lambda: swarm.state.run_end_sent, limit_s=LIMIT_S)
    assert swarm.state.totals.settled == 8


def test_a_base_that_nobody_stored_is_made_again_from_the_one_before() -> None:
    spec = tiny_spec(
        stages=2, replicas=1, epochs=2, steps=1, microbatches=3, pipeline=Pipeline.SYNC, credit=1
    )
    swarm = VirtualSwarm(spec, 2)
    swarm.add_miner()
    victim = swarm.add_miner()
    swarm.run(lambda: swarm.state.epoch == 1, limit_s=LIMIT_S)
    assert (1, 1) not in swarm.state.bases.stored
    victim.kill()
    victim.start(fresh=True)
    swarm.run(lambda: swarm.state.run_end_sent, limit_s=LIMIT_S)
    assert swarm.state.totals.settled == 6


def test_every_stages_ops_are_measured_not_the_storing_of_their_frames() -> None:
    spec = tiny_spec(
        stages=3, replicas=1, epochs=1, steps=4, microbatches=6, pipeline=Pipeline.SYNC, credit=3
    )
    swarm = VirtualSwarm(spec, 1, latency_s=0.01)
    for _ in range(3):
        swarm.add_miner()
    slow = swarm.miners[swarm.state.miners(1)[0].hotkey]
    slow.device.slowness = 20.0  # ops of 1 to 6 seconds
    swarm.run(lambda: swarm.state.run_end_sent, limit_s=LIMIT_S)
    assert min(m.op_seconds for m in swarm.state.miners()) > 0.02
    assert swarm.state.members[slow.hotkey].op_seconds > 1
    assert swarm.state.deadlines.ops[1].seconds > 3


@pytest.mark.parametrize("seed", range(5))
def test_frames_that_give_nan_as_they_were_pushed_cost_nobody_any_work(seed: int) -> None:
    spec = tiny_spec(
        stages=3, replicas=2, epochs=1, steps=3, microbatches=6, pipeline=Pipeline.DELAYED, credit=3
    )
    swarm = VirtualSwarm(spec, seed, push_rate=1.0, deny_rate=0.3)
    for _ in range(6):
        swarm.add_miner()
    denied = 0

    def done() -> bool:
        nonlocal denied
        if swarm.state.epochs:
            denied = max(denied, sum(swarm.state.current.denied.values()))
            assert not swarm.state.current.words
            assert not swarm.state.current.unproven
        return bool(swarm.state.run_end_sent)

    swarm.run(done, limit_s=LIMIT_S)
    assert denied > 5
    assert (swarm.state.totals.dropped, swarm.state.totals.rerouted) == (0, 0)
    assert [member.withdrawn for member in swarm.state.miners()] == [0] * 6
