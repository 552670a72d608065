"""Audits of real epochs: honest work passes to the bit, each cheat fails at its first false op."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from functools import cache, partial
from typing import Any

import pytest
import torch

from iota.compute.state import StageState, state_bytes
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.spec import AuditSpec
from iota.store import OUTAGES
from tests.support import audit_benches as benches
from tests.support import audited_miners as miners
from tests.support.audit_benches import Open
from tests.support.audited_runs import DEVICE, World
from tests.support.small_runs import small_run
from validator.core.audit import needed_pieces
from validator.core.results import EvidenceMissing
from validator.core.sealed import SealBroken
from validator.core.tasks import make_task

OFTEN = AuditSpec(commit_every=2)
"""Segments of versions 0 to 2 and 2 to 3."""
OTHER = "cuda/Some GPU/cuda1/torch1"
"""A device class that is not this machine's."""


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as make:
        yield make


@cache
def honest(
    pipeline: str,
    epochs: int = 1,
    optimizer: str = "adamw",
    device: str = DEVICE,
    precision: str = "fp32",
    momentum: float = 0.0,
) -> World:
    """Trained once for all tests; nobody changes it."""
    spec = small_run(
        precision=precision,
        schedule={"pipeline": pipeline},
        optimizer={"kind": optimizer, "state": "carry"},
        outer={"momentum": momentum, "momentum_warmup": 0},
        audit=OFTEN,
    )
    world = World(spec, device=device)
    for epoch in range(epochs):
        world.train(epoch)
    return world


def cheating(way: miners.Honest, stage: int, pipeline: str = "sync", device: str = DEVICE) -> World:
    world = World(small_run(schedule={"pipeline": pipeline}, audit=OFTEN), {stage: way}, device)
    world.train()
    return world


# ---- honest work ------------------------------------------------------------------------------


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
async def test_every_honest_op_passes_to_the_bit(pipeline: str, open_bench: Open) -> None:
    bench = await open_bench(honest(pipeline))
    audited = 0
    for miner in bench.world.miners:
        for receipt in bench.sealed.auditable(miner.hotkey):
            result = await bench.audit(miner.stage, AuditKind.OP, step=receipt.step, seq=receipt.seq)
            assert (result.outcome, result.profile) == (Outcome.PASS, "exact"), result
            audited += 1
    # Two stages with FORWARD and BACKWARD, one with LOSS; 3 microbatches of steps that use the base.
    assert audited == 5 * 3 * len([step for step in range(3) if bench.world.spec.weight_version(step) == 0])
    assert bench.asked == []


@pytest.mark.parametrize("device", [DEVICE, OTHER])
async def test_an_audit_of_an_op_asks_its_miner_for_nothing_that_the_store_has(
    device: str, open_bench: Open
) -> None:
    """Whatever the device class, and though the miner carried moments over."""
    bench = await open_bench(honest("delayed", 2, "adamw", device), 1, deliver=lambda miner, version: None)
    for miner in bench.world.miners:
        for receipt in bench.sealed.auditable(miner.hotkey):
            task = make_task(AuditKind.OP, receipt.seq, receipt.step)
            assert needed_pieces(bench.sealed, miner.hotkey, task) == []
            result = await bench.audit(miner.stage, AuditKind.OP, step=receipt.step, seq=receipt.seq)
            assert result.outcome is Outcome.PASS, result
    assert bench.asked == []


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
async def test_every_honest_segment_passes_to_the_bit(
    pipeline: str, optimizer: str, open_bench: Open
) -> None:
    bench = await open_bench(honest(pipeline, 1, optimizer))
    for stage in range(3):
        for step in (0, 2):
            result = await bench.audit(stage, AuditKind.SEGMENT, step=step)
            assert (result.outcome, result.profile) == (Outcome.PASS, "exact"), result


async def test_a_later_epoch_is_replayed_from_its_stored_base_and_carried_moments(open_bench: Open) -> None:
    bench = await open_bench(honest("delayed", 2), 1)
    for stage in range(3):
        for step in (0, 2):
            result = await bench.audit(stage, AuditKind.SEGMENT, step=step)
            assert result.outcome is Outcome.PASS, result


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
async def test_another_device_class_is_compared_whole_within_a_profile(
    pipeline: str, open_bench: Open
) -> None:
    bench = await open_bench(honest(pipeline, 2, "adamw", OTHER), 1)
    for step in (0, 2):
        result = await bench.audit(1, AuditKind.SEGMENT, step=step)
        assert result.outcome is Outcome.PASS, result
        assert result.profile.startswith("declared/")
    for op in (OpKind.FORWARD, OpKind.BACKWARD):
        result = await bench.audit(1, AuditKind.OP, step=0, seq=bench.op(1, op, 0).seq)
        assert result.outcome is Outcome.PASS, result


@pytest.mark.parametrize("device", [DEVICE, OTHER])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
async def test_bf16_weights_are_replayed_with_their_roundings(
    optimizer: str, device: str, open_bench: Open
) -> None:
    """To the bit, or within the bounds; from a base that is fp32, and with moments that were carried over."""
    bench = await open_bench(honest("delayed", 2, optimizer, device, "bf16-sr", 0.9), 1)
    for miner in bench.world.miners:
        assert {w.dtype for w in miner.engine.state().weights.values()} == {torch.bfloat16}
        assert await bench.check(miner.stage) is None
        for step in (0, 2):
            result = await bench.audit(miner.stage, AuditKind.SEGMENT, step=step)
            assert result.outcome is Outcome.PASS, result
            assert result.profile.startswith("exact" if device == DEVICE else "declared/0.01/bf16-sr/")
        seq = next(iter(bench.sealed.auditable(miner.hotkey))).seq
        result = await bench.audit(miner.stage, AuditKind.OP, step=0, seq=seq)
        assert result.outcome is Outcome.PASS, result


async def test_who_rounds_weights_to_the_nearest_fails_its_segment(
    open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_run(precision="bf16-sr", audit=OFTEN)
    with monkeypatch.context() as patched:
        patched.setattr("iota.compute.rounding.rounded", lambda values, bits: values.bfloat16())
        world = World(spec)
        world.train()
    bench = await open_bench(world)
    result = await bench.audit(1, AuditKind.SEGMENT, step=0)
    assert result.outcome is Outcome.FAIL


async def test_nothing_is_found_in_honest_records(open_bench: Open) -> None:
    bench = await open_bench(honest("delayed", 2), 1)
    for miner in bench.world.miners:
        assert await bench.check(miner.stage) is None


async def test_a_life_that_took_the_base_anew_has_segments_from_there(open_bench: Open) -> None:
    world = World(small_run(schedule={"pipeline": "delayed"}, audit=OFTEN))
    world.train(rejoin=(1, 2))
    bench = await open_bench(world)
    assert [(s.first, s.last) for s in bench.sealed.segments(world.miners[1].hotkey)] == [(2, 3)]
    result = await bench.audit(1, AuditKind.SEGMENT, step=2)
    assert result.outcome is Outcome.PASS, result
    assert await bench.check(1) is None


# ---- cheats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [DEVICE, OTHER])
async def test_noise_fails_at_the_first_audited_forward(device: str, open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.Noise(), 1, device=device))
    receipt = bench.op(1, OpKind.FORWARD, 0)
    result = await bench.audit(1, AuditKind.OP, step=0, seq=receipt.seq)
    assert (result.outcome, result.seq) == (Outcome.FAIL, receipt.seq)
    result = await bench.audit(1, AuditKind.SEGMENT)
    assert (result.outcome, result.seq) == (Outcome.FAIL, bench.op(1, OpKind.FORWARD, 0).seq)


async def test_those_who_work_on_a_cheats_output_pass(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.Noise(), 1))
    for stage in (0, 2):
        result = await bench.audit(stage, AuditKind.SEGMENT)
        assert result.outcome is Outcome.PASS, result
    assert not bench.sealed.faults


@pytest.mark.parametrize("device", [DEVICE, OTHER])
async def test_a_zero_backward_fails_in_the_op_and_in_the_segment(device: str, open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.ZeroBackward(), 1, "delayed", device))
    receipt = bench.op(1, OpKind.BACKWARD, 0)
    result = await bench.audit(1, AuditKind.OP, step=0, seq=receipt.seq)
    assert (result.outcome, result.seq) == (Outcome.FAIL, receipt.seq)
    result = await bench.audit(1, AuditKind.SEGMENT)
    assert (result.outcome, result.seq) == (Outcome.FAIL, receipt.seq)


async def test_who_never_steps_shows_in_the_commitments_alone(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.SkipsStep(), 1))
    fault = await bench.check(1)
    assert fault is not None
    assert (fault.hotkey, fault.seq) == (bench.world.miners[1].hotkey, bench.op(1, OpKind.COMMIT, 2).seq)


@pytest.mark.parametrize("device", [DEVICE, OTHER])
@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
async def test_who_never_steps_fails_its_replay(pipeline: str, device: str, open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.SkipsStep(), 1, pipeline, device))
    result = await bench.audit(1, AuditKind.SEGMENT)
    assert result.outcome is Outcome.FAIL, result


@pytest.mark.parametrize("device", [DEVICE, OTHER])
@pytest.mark.parametrize("at", [0, 1])
async def test_a_nudge_of_one_element_in_any_step_of_the_segment_fails(
    at: int, device: str, open_bench: Open
) -> None:
    bench = await open_bench(cheating(miners.NudgedStep(at), 0, device=device))
    assert (await bench.audit(0, AuditKind.SEGMENT)).outcome is Outcome.FAIL


async def test_a_nudge_at_the_last_step_fails_at_the_commitment(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.NudgedStep(1, share=1e-3), 0))
    result = await bench.audit(0, AuditKind.SEGMENT)
    assert (result.outcome, result.seq) == (Outcome.FAIL, bench.op(0, OpKind.COMMIT, 2).seq)


@pytest.mark.parametrize("device", [DEVICE, OTHER])
async def test_a_false_gradient_norm_fails_at_its_step(device: str, open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.FalseNorm(), 1, device=device))
    result = await bench.audit(1, AuditKind.SEGMENT)
    assert (result.outcome, result.seq) == (Outcome.FAIL, bench.op(1, OpKind.STEP, 0).seq)


@pytest.mark.parametrize("device", [DEVICE, OTHER])
@pytest.mark.parametrize("group", ["weights", "moments", "before"])
async def test_a_commitment_to_another_state_fails(group: str, device: str, open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.FalseCommit(2, group), 1, "delayed", device))
    result = await bench.audit(1, AuditKind.SEGMENT)
    assert (result.outcome, result.seq) == (Outcome.FAIL, bench.op(1, OpKind.COMMIT, 2).seq)


async def test_a_false_state_at_the_start_fails_in_the_segment_after_it(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.FalseCommit(2, "before"), 1, "delayed"))
    assert (await bench.audit(1, AuditKind.SEGMENT, step=2)).outcome is Outcome.FAIL


@pytest.mark.parametrize("device", [DEVICE, OTHER])
async def test_who_begins_with_other_weights_than_the_bases_shows_alone(
    device: str, open_bench: Open
) -> None:
    bench = await open_bench(cheating(miners.FalseCommit(0, "weights"), 1, device=device))
    fault = await bench.check(1)
    assert fault is not None
    assert (fault.seq, fault.reason[:33]) == (1, "it committed to other weights tha")


async def test_carried_moments_that_are_not_those_committed_to_fail(open_bench: Open) -> None:
    world = World(small_run(optimizer={"state": "carry"}, audit=OFTEN), {1: miners.FalseCommit(0, "moments")})
    for epoch in range(2):
        world.train(epoch)
    bench = await open_bench(world, 1)
    fault = await bench.check(1)
    assert fault is not None
    assert fault.seq == bench.op(1, OpKind.COMMIT, 0).seq
    assert "ended the last one with" in fault.reason
    assert (await bench.audit(1, AuditKind.SEGMENT)).outcome is Outcome.FAIL


async def test_stale_weights_fail_at_the_first_op_that_used_them(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.StaleWeights(), 1))
    result = await bench.audit(1, AuditKind.SEGMENT)
    assert (result.outcome, result.seq) == (Outcome.FAIL, bench.op(1, OpKind.FORWARD, 1).seq)


async def test_a_false_loss_fails(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.FalseLoss(), 2))
    receipt = bench.op(2, OpKind.LOSS, 0)
    result = await bench.audit(2, AuditKind.OP, step=0, seq=receipt.seq)
    assert (result.outcome, result.seq, result.found) == (Outcome.FAIL, receipt.seq, repr(receipt.loss))


@pytest.mark.parametrize("device", [DEVICE, OTHER])
@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("way", [miners.PoisonedDelta(-100), miners.NudgedDelta()])
async def test_a_poisoned_pseudo_gradient_fails_every_segment(
    way: miners.Honest, step: int, device: str, open_bench: Open
) -> None:
    bench = await open_bench(cheating(way, 0, device=device))
    result = await bench.audit(0, AuditKind.SEGMENT, step=step)
    assert (result.outcome, result.seq) == (Outcome.FAIL, bench.op(0, OpKind.COMMIT, 3).seq), result
    assert "pseudo-gradient" in result.reason


# ---- evidence that is withheld, missing or false ------------------------------------------------


async def test_a_snapshot_that_does_not_come_is_undelivered(open_bench: Open) -> None:
    bench = await open_bench(honest("sync"), deliver=lambda miner, version: None)
    result = await bench.audit(0, AuditKind.SEGMENT, step=2)
    assert result.outcome is Outcome.UNDELIVERED
    assert "did not come in time" in result.reason


async def test_a_snapshot_that_its_miner_did_not_commit_to_fails(open_bench: Open) -> None:
    def base(miner: miners.Miner, version: int) -> bytes:
        return state_bytes(StageState(miner.snapshots[0].weights, miner.snapshots[version].moments))

    bench = await open_bench(honest("sync"), deliver=base)
    result = await bench.audit(0, AuditKind.SEGMENT, step=2)
    assert (result.outcome, result.seq) == (Outcome.FAIL, bench.op(0, OpKind.COMMIT, 2).seq)


async def test_across_classes_the_state_at_the_end_and_what_was_sent_are_needed(open_bench: Open) -> None:
    def first(miner: miners.Miner, version: int) -> bytes | None:
        return state_bytes(miner.snapshots[version]) if version == 3 else None

    world = honest("sync", 1, "adamw", OTHER)
    bench = await open_bench(world, deliver=first)
    assert (await bench.audit(0, AuditKind.SEGMENT)).outcome is Outcome.UNDELIVERED
    lost = copy.copy(world)
    lost.store = {key: data for key, data in world.store.items() if not key.endswith("/frames/0/0/0.0/1.f")}
    bench = await open_bench(lost, frames=lambda miner, step: None)
    assert (await bench.audit(1, AuditKind.SEGMENT)).outcome is Outcome.UNDELIVERED
    bench = await open_bench(lost)
    assert (await bench.audit(1, AuditKind.SEGMENT)).outcome is Outcome.PASS


@pytest.mark.parametrize("outage", OUTAGES)
async def test_what_a_store_that_is_away_does_not_give_is_not_gone(
    open_bench: Open, monkeypatch: pytest.MonkeyPatch, outage: type[Exception]
) -> None:
    bench = await open_bench(honest("sync"))

    async def away(*args: object, **kwargs: object) -> bytes:
        raise outage("away")

    monkeypatch.setattr(World, "get", away)
    result = await bench.audit(1, AuditKind.OP, step=0, seq=bench.op(1, OpKind.FORWARD, 0).seq)
    assert (result.outcome, result.profile) == (Outcome.INCONCLUSIVE, "")


async def test_sending_another_frame_than_receipted_accuses_the_sender(open_bench: Open) -> None:
    world = World(small_run(audit=OFTEN), {0: _LiesInReceipts()})
    world.train()
    bench = await open_bench(world)
    receipt = bench.op(1, OpKind.FORWARD, 0)
    assert (await bench.audit(1, AuditKind.OP, step=0, seq=receipt.seq)).outcome is Outcome.PASS
    assert [fault.hotkey for fault in bench.sealed.faults] == [world.miners[0].hotkey]


class _LiesInReceipts(miners.Honest):
    def output(self, miner: Any, mb: Any, kind: OpKind, output: Any) -> Any:
        if kind is OpKind.FORWARD:
            miner.write = partial(_write_lie, miner)
        return output


def _write_lie(miner: miners.Miner, **fields: Any) -> Any:
    false = {"output": "11" * 32} if fields["kind"] is OpKind.FORWARD else {}
    return miners.Miner.write(miner, **{**fields, **false})


async def test_receipts_that_the_seal_does_not_cover_are_refused(open_bench: Open) -> None:
    world = World(small_run(audit=OFTEN))
    record = world.train()
    world.records[0] = record.model_copy(update={"root": "22" * 32})
    with pytest.raises(SealBroken, match="not those that were sealed"):
        await open_bench(world)


async def test_a_base_that_the_seed_does_not_give_is_refused(open_bench: Open) -> None:
    world = World(small_run(audit=OFTEN))
    world.bases[0] = world.bases[0].model_copy(update={"digest": "33" * 32})
    world.train()
    bench = await open_bench(world)
    with pytest.raises(EvidenceMissing, match="seed"):
        await bench.evidence.base(bench.base(0))
