"""What a hostile member says to the coordinator: it changes nothing that is not its own, and ends nothing."""

from __future__ import annotations

import pytest

from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import (
    AuditKind,
    BaseStored,
    FrameMissing,
    Outcome,
    Ready,
    Verdict,
)
from iota.protocol.receipts import OpKind, Receipt
from iota.simulate.names import digest
from iota.simulate.swarm import VirtualSwarm
from iota.spec import Pipeline
from orchestrator.coordinator import Exchanged
from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase
from tests.support.virtual_runs import tiny_spec


@pytest.fixture
def swarm() -> VirtualSwarm:
    """Two stages with two replicas each, in the middle of the first epoch."""
    spec = tiny_spec(
        stages=2, replicas=2, epochs=2, steps=3, microbatches=6, pipeline=Pipeline.DELAYED, credit=2
    )
    swarm = VirtualSwarm(spec, 1)
    for _ in range(4):
        swarm.add_miner()
    swarm.run(lambda: swarm.state.totals.settled > 2, limit_s=1000)
    assert swarm.state.phase is Phase.TRAINING
    return swarm


def _say(swarm: VirtualSwarm, member: Member, **what: object) -> None:
    swarm.apply(Exchanged(at=swarm.now, hotkey=member.hotkey, **what))  # type: ignore[arg-type]


def _of(swarm: VirtualSwarm, stage: int) -> Member:
    return swarm.state.miners(stage)[0]


def _receipt(member: Member, **changes: object) -> Receipt:
    fields = {
        "seq": member.receipts + 1,
        "epoch": 0,
        "step": 0,
        "microbatch": 0,
        "stage": member.stage,
        "kind": OpKind.FORWARD,
        "version": 0,
        "output": "ab" * 32,
        "started": 1.0,
        "ended": 2.0,
        "device": "liar",
        "previous": member.head,
    }
    return Receipt.model_validate({**fields, **changes})


def test_a_base_of_an_epoch_that_is_not_merged_yet_is_nobodys(swarm: VirtualSwarm) -> None:
    liar = _of(swarm, 0)
    _say(swarm, liar, reports=(Ready(epoch=1, digest="de" * 32),))
    _say(swarm, liar, reports=(BaseStored(epoch=1, digest="de" * 32, parts=()),))
    swarm.run(lambda: swarm.state.run_end_sent, limit_s=2000)
    assert "de" * 32 not in {base.digest for base in swarm.state.bases.stored.values()}


def test_one_replica_cannot_choose_its_stages_base() -> None:
    spec = tiny_spec(
        stages=1, replicas=3, epochs=1, steps=1, microbatches=3, pipeline=Pipeline.SYNC, credit=1
    )
    swarm = VirtualSwarm(spec, 1)
    for _ in range(3):
        swarm.add_miner()
    _say(swarm, _of(swarm, 0), reports=(Ready(epoch=0, digest="de" * 32),))
    swarm.run(lambda: swarm.state.phase is not Phase.GATHERING, limit_s=2000)
    assert swarm.state.bases.digests[0, 0] == digest("base", 0, 0)


def test_a_frame_that_was_never_announced_cannot_be_missing(swarm: VirtualSwarm) -> None:
    state, step = swarm.state, swarm.state.current.steps[-1]
    mb = next(m for m in step.microbatches if m.ended is None and m.places[0].forward is None)
    name = FrameName(
        epoch=0,
        step=step.number,
        microbatch=mb.index,
        attempt=0,
        stage=0,
        direction=Direction.FORWARD,
    )
    receiver = state.members[mb.places[1].miner]
    _say(swarm, receiver, reports=(FrameMissing(name=name, reason="made up"),))
    assert (mb.ended, mb.next_attempt, state.totals.rerouted) == (None, 1, 0)
    assert all(m.withdrawn == 0 for m in state.members.values())


def test_repeated_receipts_of_one_op_are_no_progress(swarm: VirtualSwarm) -> None:
    idler = _of(swarm, 0)
    before = idler.last_progress
    for _ in range(3):
        swarm.clock.now += 1
        _say(swarm, idler, receipts=(_receipt(idler, microbatch=0),))
    assert idler.last_progress == before


def test_absurd_times_in_a_receipt_do_not_reach_the_plan(swarm: VirtualSwarm) -> None:
    liar = _of(swarm, 0)
    step = swarm.state.current.steps[-1]
    mb = next(m for m in step.microbatches if m.places[0].miner == liar.hotkey and not m.places[0].counted)
    disk = swarm.miners[liar.hotkey].disk
    receipt = _receipt(
        liar,
        seq=disk.count + 1,
        previous=disk.head,
        step=step.number,
        microbatch=mb.index,
        kind=OpKind.BACKWARD,
        started=0.0,
        ended=5e-324,
    )
    disk.append(receipt)
    _say(swarm, liar, receipts=tuple(disk.unstored))
    swarm.run(lambda: swarm.state.run_end_sent, limit_s=2000)
    assert not swarm.state.incidents.internal


def test_verdicts_about_strangers_and_repeats_are_not_kept(swarm: VirtualSwarm) -> None:
    swarm.run(lambda: swarm.state.epoch == 1 or swarm.state.run_end_sent, limit_s=2000)
    verdict = Verdict(
        epoch=0,
        miner=_of(swarm, 0).hotkey,
        audit=AuditKind.OP,
        outcome=Outcome.FAIL,
        seq=1,
        profile="x",
    )
    for _ in range(3):
        _say(swarm, _of(swarm, 1), reports=(verdict,))
    assert swarm.state.audits.outcomes[Outcome.FAIL] == 0


def test_a_fault_in_an_entry_is_recorded_and_ends_nothing(
    swarm: VirtualSwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Coordinator, entry: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Coordinator, "_apply", broken)
    swarm.coordinator.apply(Exchanged(at=swarm.now, hotkey=_of(swarm, 0).hotkey))
    assert "a fault of ours" in swarm.state.incidents.internal[0]
