"""Every index of the coordinator equals its definition after each entry, under random faults."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iota.protocol.frames import Direction, EvidenceItem, FrameName
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    BadValue,
    Capabilities,
    EvidenceWanted,
    FrameMissing,
    JoinRequest,
    Report,
    Reveal,
    Role,
)
from iota.simulate.names import fake_hotkey
from iota.simulate.swarm import VirtualSwarm
from iota.spec import Overlap, Pipeline
from orchestrator.coordinator import Entry, Exchanged, Finding, Left, LookedAt, Lost, StoreAway, StoreBack
from orchestrator.coordinator.state import Phase
from tests.support.coordinator_indexes import check_indexes, check_nothing_is_stranded
from tests.support.virtual_runs import tiny_spec

LIMIT_S = 20_000.0
FAULTS = (
    "kill",
    "fresh",
    "join",
    "leave",
    "orchestrator",
    "slow",
    "blink",
    "validator",
    "stage",
    "store",
    "denial",
    "snapshots",
)
VALIDATORS = 10_000
"""Number of the first validator's hotkey."""


class CheckedSwarm(VirtualSwarm):
    """A swarm whose every entry is followed by a check of all indexes."""

    def apply(self, entry: Entry) -> None:
        """Apply the entry, then scan everything."""
        super().apply(entry)
        check_indexes(self.state)
        if not isinstance(entry, Exchanged):
            check_nothing_is_stranded(self.state)

    def leave(self, key: str) -> None:
        """The member leaves for good."""
        if (entry := self.intake.leave(key, self.now)) is not None:
            self.apply(entry)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    stages=st.integers(1, 4),
    replicas=st.integers(1, 3),
    microbatches=st.integers(3, 8),
    steps=st.integers(1, 4),
    pipeline=st.sampled_from(Pipeline),
    faults=st.lists(st.tuples(st.sampled_from(FAULTS), st.floats(0, 60)), max_size=8),
    nan_rate=st.sampled_from([0.0, 0.0, 0.02]),
    push_rate=st.sampled_from([0.0, 0.5, 1.0]),
    deny_rate=st.sampled_from([0.0, 0.0, 0.05, 0.5]),
    lose_rate=st.sampled_from([0.0, 0.0, 0.0, 0.05]),
    overlap=st.sampled_from(Overlap),
)
def test_every_index_equals_a_scan_after_every_entry(
    seed: int,
    stages: int,
    replicas: int,
    microbatches: int,
    steps: int,
    pipeline: Pipeline,
    faults: list[tuple[str, float]],
    nan_rate: float,
    push_rate: float,
    deny_rate: float,
    lose_rate: float,
    overlap: Overlap,
) -> None:
    epochs = 2 if overlap is Overlap.NONE else 3
    spec = tiny_spec(
        stages=stages,
        replicas=replicas,
        epochs=epochs,
        steps=steps,
        microbatches=microbatches,
        pipeline=pipeline,
        credit=2,
        heldout=2,
        overlap=overlap,
    )
    swarm = CheckedSwarm(
        spec, seed, nan_rate=nan_rate, push_rate=push_rate, deny_rate=deny_rate, lose_rate=lose_rate
    )
    for _ in range(stages * replicas):
        swarm.add_miner()
    chance = random.Random(seed)
    for fault, at in faults:
        swarm.clock.later(at, lambda fault=fault: _inject(swarm, chance, fault))
    swarm.run(lambda: swarm.state.run_end_sent, limit_s=LIMIT_S)
    assert swarm.state.totals.settled + swarm.state.totals.dropped == epochs * steps * microbatches


def _inject(swarm: CheckedSwarm, chance: random.Random, fault: str) -> None:
    if swarm.state.run_end_sent:
        return
    victim = chance.choice(list(swarm.miners.values()))
    match fault:
        case "join" if swarm.state.phase is not Phase.FINISHED:
            swarm.add_miner()
        case "orchestrator":
            swarm.restart_orchestrator()
        case "slow":
            victim.device.slowness = chance.uniform(2, 30)
        case "leave":
            victim.kill()
            swarm.leave(victim.hotkey)
            if chance.random() < 0.5:
                swarm.clock.later(chance.uniform(1, 30), lambda: _inject(swarm, chance, "join"))
            else:
                fresh = chance.random() < 0.5
                swarm.clock.later(chance.uniform(1, 30), lambda: _start(swarm, victim.hotkey, fresh=fresh))
        case "kill" | "fresh" | "blink" if victim.alive:
            victim.kill()
            away = chance.uniform(0.1, 3) if fault == "blink" else chance.uniform(10, 60)
            swarm.clock.later(away, lambda: _start(swarm, victim.hotkey, fresh=fault == "fresh"))
        case "stage":  # all of its replicas are gone at once, and come back one by one
            stage = swarm.coordinator.members[victim.hotkey].stage
            for member in list(swarm.state.miners(stage)):
                if swarm.miners[member.hotkey].alive:
                    swarm.miners[member.hotkey].kill()
                    fresh = chance.random() < 0.5
                    swarm.clock.later(
                        chance.uniform(5, 60),
                        lambda key=member.hotkey, fresh=fresh: _start(swarm, key, fresh),
                    )
        case "validator":
            _come_and_go(swarm, chance)
        case "store":
            swarm.apply(StoreAway(at=swarm.now))
            swarm.clock.later(chance.uniform(1, 60), lambda: swarm.apply(StoreBack(at=swarm.now)))
        case "denial":
            _deny(swarm, chance)
        case "snapshots":
            _ask_for_evidence(swarm, chance)


def _deny(swarm: CheckedSwarm, chance: random.Random) -> None:
    """Some receiver says of a stored frame that it is missing or NaN; the server finds anything."""
    run = swarm.state
    stored = [
        (step.number, mb, stage)
        for step in (run.current.open_steps() if run.phase is Phase.TRAINING else ())
        for mb in step.microbatches
        for stage, place in enumerate(mb.places[:-1])
        if mb.ended is None and place.forward is not None
    ]
    if not stored:
        return
    step, mb, stage = chance.choice(stored)
    hotkey = mb.places[stage + 1].miner
    at = {"epoch": run.epoch, "step": step, "microbatch": mb.index}
    attempt = mb.places[stage].attempt
    name = FrameName(**at, attempt=attempt, stage=stage, direction=Direction.FORWARD)
    report = chance.choice([BadValue(**at), FrameMissing(name=name, reason="made up")])
    looked = (LookedAt(name=name, found=chance.choice(list(Finding))),)
    swarm.apply(Exchanged(at=swarm.now, hotkey=hotkey, reports=(report,), looked=looked))


def _ask_for_evidence(swarm: CheckedSwarm, chance: random.Random) -> None:
    """A validator asks for snapshots and frames of epochs with open audits; some of the miners deliver."""
    _come_and_go(swarm, chance)
    for validator in swarm.state.validators():
        for number, epoch in list(swarm.state.epochs.items()):
            if epoch.seal is None:
                continue
            reports: list[Report] = [Reveal(epoch=number, link="0" * 64)]
            reports += [
                EvidenceWanted(epoch=number, miner=hotkey, item=item, version=chance.randrange(4))
                for hotkey in epoch.stages
                for item in EvidenceItem
            ]
            swarm.apply(Exchanged(at=swarm.now, hotkey=validator.hotkey, reports=tuple(reports)))


def _start(swarm: CheckedSwarm, key: str, fresh: bool) -> None:
    if not swarm.miners[key].alive:
        swarm.miners[key].start(fresh=fresh)


def _come_and_go(swarm: CheckedSwarm, chance: random.Random) -> None:
    """A validator joins, and is lost or leaves a little later."""
    key = fake_hotkey(VALIDATORS + chance.randrange(3))
    device = Capabilities(device="virtual", memory=1, flops=1.0)
    swarm.join(key, JoinRequest(role=Role.VALIDATOR, versions=(PROTOCOL_VERSION,), capabilities=device))
    entry = chance.choice([Lost, Left])
    swarm.clock.later(chance.uniform(1, 60), lambda: swarm.apply(entry(at=swarm.now, hotkey=key)))
