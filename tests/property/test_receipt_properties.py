"""Receipts under random losses, restarts and re-joins: honest ones are never refused, and are paid once."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iota.protocol.messages import AuditKind
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import Overlap, Pipeline
from orchestrator.coordinator.lives import BASES_ANEW
from orchestrator.coordinator.state import Phase
from tests.support.virtual_records import RecordedSwarm
from tests.support.virtual_runs import tiny_spec
from validator.core import all_receipts
from validator.core.epoch_before import EpochBefore, check_follows, epoch_before
from validator.core.heldout import heldout_of
from validator.core.sealed import SealedEpoch, stage_ops
from validator.core.segments import Draws
from validator.core.tasks import drawn_tasks

FAULTS = ("kill", "blink", "disk", "state", "join", "orchestrator", "slow", "slow")
LIMIT_S = 20_000.0


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32),
    stages=st.integers(1, 4),
    replicas=st.integers(1, 3),
    steps=st.integers(1, 5),
    pipeline=st.sampled_from(Pipeline),
    commit_every=st.integers(1, 5),
    heldout=st.integers(0, 4),
    faults=st.lists(st.tuples(st.sampled_from(FAULTS), st.floats(0, 60)), max_size=10),
    nan_rate=st.sampled_from([0.0, 0.0, 0.02]),
    overlap=st.sampled_from(Overlap),
)
@example(0, 2, 2, 1, Pipeline.SYNC, 5, 0, [("kill", 0.0), ("kill", 0.0), ("disk", 34.0)], 0.0, Overlap.NONE)
def test_honest_receipts_are_never_refused_and_each_op_is_paid_once(
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    stages: int,
    replicas: int,
    steps: int,
    pipeline: Pipeline,
    commit_every: int,
    heldout: int,
    faults: list[tuple[str, float]],
    nan_rate: float,
    overlap: Overlap,
) -> None:
    monkeypatch.setattr(all_receipts, "is_signed", lambda *signed: True)  # simulated hotkeys have no key
    monkeypatch.setattr(all_receipts, "false_commit", lambda *of: None)  # nor their miners weights
    spec = tiny_spec(
        stages=stages,
        replicas=replicas,
        epochs=3,
        steps=steps,
        microbatches=6,
        pipeline=pipeline,
        credit=2,
        commit_every=commit_every,
        heldout=heldout,
        overlap=overlap,
    )
    swarm = RecordedSwarm(spec, seed, nan_rate=nan_rate)
    for _ in range(stages * replicas):
        swarm.add_miner()
    chance = random.Random(seed)
    for fault, at in faults:
        swarm.clock.later(at, lambda fault=fault: _inject(swarm, chance, fault))
    swarm.run(swarm.look, limit_s=LIMIT_S)  # a refused exchange raises
    assert swarm.sealed.keys() == set(range(3))
    before = EpochBefore()
    for _, sealed in sorted(swarm.sealed.items()):
        check_follows(spec, sealed.record, before)
        before = epoch_before(sealed)
        assert all_receipts.check_receipts(sealed) == []
        _check_pay(swarm, sealed)
        _check_drawn(sealed)
        _check_heldout(sealed)


def _check_drawn(sealed: SealedEpoch) -> None:
    """Single ops are drawn of those alone that used the base of their life, and all of them can be."""
    draws = Draws("ab" * 32, "cd" * 32, "nobody")
    for hotkey in sealed.miners:
        shown = {r.seq: r for r in sealed.auditable(hotkey)}
        assert all(r.version == sealed.life(hotkey, r).joined for r in shown.values())
        at_base = {r.seq for r in sealed.paid(hotkey) if r.version == sealed.life(hotkey, r).joined}
        assert at_base <= shown.keys()
        tasks = [task for task in drawn_tasks(sealed, draws, hotkey) if task.kind is AuditKind.OP]
        assert {task.seq for task in tasks} <= shown.keys()


def _check_pay(swarm: RecordedSwarm, sealed: SealedEpoch) -> None:
    """What is paid was done; of each settled microbatch each receipted op is paid once, where it counts.

    Not what nobody can show: an earlier life's ops in versions after its base, and what went on from them.
    """
    paid = [r for hotkey in sealed.miners for r in sealed.paid(hotkey)]
    ops = [_op(r) for r in paid]
    assert len(ops) == len(set(ops))
    assert all(r.key in swarm.done[hotkey] for hotkey in sealed.miners for r in sealed.paid(hotkey))
    counting = {
        (c.step, microbatch, sealed.miners[c.miner].stage): (c.miner, attempt)
        for c in sealed.record.counted
        for microbatch, attempt in c.counted
    }
    stages = Counter((step, microbatch) for step, microbatch, _ in counting)
    for hotkey, miner in sealed.miners.items():
        for receipt in sealed.receipts[hotkey]:
            paying = receipt.kind in stage_ops(miner.stage, sealed.spec.layout.stages)
            if not paying or stages[receipt.step, receipt.microbatch] < sealed.spec.layout.stages:
                continue
            winner, attempt = counting[receipt.step, receipt.microbatch, miner.stage]
            counts = (winner, attempt) == (hotkey, receipt.attempt)
            assert not counts or receipt in paid or sealed.withholds(hotkey) or _lost(sealed, hotkey, receipt)
            unpaid = {hotkey, winner} & {
                h
                for h in sealed.miners
                if sealed.withholds(h)
                or any(_lost(sealed, h, r) for r in sealed.receipts[h] if _op(r) == _op(receipt))
            }
            assert _op(receipt) in ops or unpaid, "done, settled, and paid to nobody"


def _check_heldout(sealed: SealedEpoch) -> None:
    """Of the held-out microbatches those ops are paid that the record names, once, and no others."""
    spec = sealed.spec
    paid = {
        _op(r): hotkey
        for hotkey in sealed.miners
        for r in sealed.paid(hotkey)
        if spec.is_heldout(r.microbatch)
    }
    named = {}
    for done in sealed.record.heldout:
        for stage, attempt in enumerate(done.attempts):
            kind = OpKind.EVAL if stage == spec.last_stage else OpKind.FORWARD
            hotkey = sealed.owner(0, done.microbatch, attempt, stage)
            assert hotkey is not None
            receipt = sealed.receipt(hotkey, 0, done.microbatch, attempt, kind)
            assert receipt is not None
            if not sealed.withholds(hotkey) and not _lost(sealed, hotkey, receipt):
                named[0, done.microbatch, stage, kind] = hotkey
    assert paid == named
    found = heldout_of(sealed)
    assert (found.microbatches if found else 0) == len(sealed.record.heldout) <= spec.schedule.heldout


def _lost(sealed: SealedEpoch, hotkey: str, receipt: Receipt) -> bool:
    """Whether an op's weights were lost with the life that ran it, or nobody knows what that began with."""
    life = sealed.life(hotkey, receipt)
    earlier = life is not sealed.last_life(hotkey) and receipt.version > life.joined
    return earlier or not sealed.knows_start(hotkey, life)


def _op(receipt: Receipt) -> tuple[int, int, int, OpKind]:
    return receipt.step, receipt.microbatch, receipt.stage, receipt.kind


def _inject(swarm: RecordedSwarm, chance: random.Random, fault: str) -> None:
    if swarm.state.run_end_sent:
        return
    victim = chance.choice(list(swarm.miners.values()))
    match fault:
        case "join":
            if swarm.state.phase is not Phase.FINISHED:  # who is new is then refused
                swarm.add_miner()
        case "orchestrator":
            swarm.restart_orchestrator()
        case "slow":
            victim.device.slowness = chance.uniform(2, 30)
        case _ if victim.alive:
            victim.kill()
            away = chance.uniform(10, 60) if fault == "kill" else chance.uniform(0.1, 3)

            def back() -> None:
                if fault == "state":  # its receipts are on the disk, some of them never sent
                    victim.disk.bases.clear()
                victim.start(fresh=fault == "disk")

            swarm.clock.later(away, back)


def test_a_miner_that_takes_the_base_anew_again_waits_for_the_next_epoch() -> None:
    spec = tiny_spec(
        stages=1, replicas=2, epochs=3, steps=4, microbatches=8, pipeline=Pipeline.DELAYED, credit=2
    )
    swarm = RecordedSwarm(spec, 5)
    first, other = swarm.add_miner(), swarm.add_miner()
    for times in range(1, BASES_ANEW + 3):
        swarm.run(lambda n=times: swarm.state.totals.settled >= 5 * n, limit_s=LIMIT_S)
        first.kill()
        first.start(fresh=True)
    swarm.run(lambda: swarm.state.members[first.hotkey].ready_epoch == 0, limit_s=LIMIT_S)
    told = swarm.coordinator.member_record(first.hotkey)
    assert told is not None
    assert ("too often" in told.why, told.until) == (True, "epoch 1 begins")
    swarm.run(swarm.look, limit_s=LIMIT_S)
    lives = [len(sealed.miners[first.hotkey].lives) for sealed in swarm.sealed.values()]
    assert lives == [1 + BASES_ANEW, 1, 1]
    assert all(len(sealed.miners[other.hotkey].lives) == 1 for sealed in swarm.sealed.values())


def test_the_last_replica_of_a_stage_takes_the_base_anew_as_often_as_it_must() -> None:
    spec = tiny_spec(
        stages=2, replicas=1, epochs=1, steps=4, microbatches=8, pipeline=Pipeline.SYNC, credit=2
    )
    swarm = RecordedSwarm(spec, 5)
    first, _ = swarm.add_miner(), swarm.add_miner()
    for times in range(1, BASES_ANEW + 3):
        swarm.run(lambda n=times: swarm.state.totals.settled >= 3 * n, limit_s=LIMIT_S)
        first.kill()
        first.start(fresh=True)
    swarm.run(swarm.look, limit_s=LIMIT_S)
    assert len(swarm.sealed[0].miners[first.hotkey].lives) > 1 + BASES_ANEW
