"""Held-out microbatches of real epochs: replayed to the bit, paid a third, and a lie in one is found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch, Output
from iota.protocol.heldout import base_loss
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.protocol.records import EpochRecord
from iota.spec import AuditSpec
from tests.support import audit_benches as benches
from tests.support import audited_miners as miners
from tests.support.audit_benches import Open
from tests.support.audited_runs import THREADS, World
from tests.support.bundles import BLOCK_HASH, KEY, LINKS, Desk
from tests.support.small_runs import small_run
from tests.support.spoken_words import said
from validator.audits.replay import ReplayOptions
from validator.bundles.outside import Outside
from validator.bundles.repeat import repeat
from validator.core.all_receipts import check_receipts
from validator.core.heldout import heldout_of
from validator.core.record_checks import check_record
from validator.core.scoring import op_flops
from validator.core.sealed import SealBroken, SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import drawn_tasks, epoch_work

HELDOUT = 4
FIRST = 3
"""Number of the first held-out microbatch."""


class HeldoutNoise(miners.Noise):
    """Sends noise for its forwards of held-out microbatches, and works honestly otherwise."""

    def output(self, miner: miners.Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        return super().output(miner, mb, kind, output) if mb.index >= FIRST else output


class HeldoutLie(miners.Honest):
    """Claims a better held-out loss than the base has, with the digest of losses that give it."""

    def output(self, miner: miners.Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        if kind is not OpKind.EVAL or output.loss is None:
            return output
        return replace(output, loss=output.loss / 2, digest=blake3(b"lie").hexdigest())


class HeldoutNumber(miners.Honest):
    """Claims a better held-out loss over the true digest."""

    def output(self, miner: miners.Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        return replace(output, loss=(output.loss or 0) / 2) if kind is OpKind.EVAL else output


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as make:
        yield make


@cache
def trained(pipeline: str = "sync", stage: int = 0, way: type[miners.Honest] = miners.Honest) -> World:
    world = World(small_run(schedule={"pipeline": pipeline, "heldout": HELDOUT}), {stage: way()})
    world.train()
    return world


def changed(world: World, **update: Any) -> SealedEpoch:
    """The epoch with another record, as an orchestrator could have sealed it."""
    record: EpochRecord = world.records[0].model_copy(update=update)
    receipts = {miner.hotkey: world.of_epoch(0, miner) for miner in world.miners}
    return SealedEpoch(world.spec, record, world.plans[0], receipts)


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
async def test_ops_and_segments_with_held_out_microbatches_pass_to_the_bit(
    open_bench: Open, pipeline: str
) -> None:
    bench = await open_bench(trained(pipeline))
    for stage, kind in ((0, OpKind.FORWARD), (1, OpKind.FORWARD), (2, OpKind.EVAL)):
        for index in (FIRST, FIRST + HELDOUT - 1):
            op = bench.op(stage, kind, 0, index)
            assert op in bench.sealed.auditable(bench.world.miners[stage].hotkey)
            result = await bench.audit(stage, AuditKind.OP, seq=op.seq)
            assert (result.outcome, result.profile) == (Outcome.PASS, "exact")
        result = await bench.audit(stage, AuditKind.SEGMENT)
        assert (result.outcome, result.profile) == (Outcome.PASS, "exact")


@pytest.mark.parametrize(
    ("stage", "way", "kind"),
    [
        (0, HeldoutNoise, OpKind.FORWARD),
        (1, HeldoutNoise, OpKind.FORWARD),
        (2, HeldoutLie, OpKind.EVAL),
        (2, HeldoutNumber, OpKind.EVAL),
    ],
)
async def test_a_lie_in_a_held_out_microbatch_alone_fails_its_op_and_its_segment(
    open_bench: Open, stage: int, way: type[miners.Honest], kind: OpKind
) -> None:
    bench = await open_bench(trained("sync", stage, way))
    lie = bench.op(stage, kind, 0, FIRST)
    result = await bench.audit(stage, AuditKind.OP, seq=lie.seq)
    assert (result.outcome, result.seq) == (Outcome.FAIL, lie.seq)
    result = await bench.audit(stage, AuditKind.SEGMENT)
    assert (result.outcome, result.seq) == (Outcome.FAIL, lie.seq)


async def test_a_false_loss_fails_across_device_classes_too(open_bench: Open) -> None:
    spec = small_run(schedule={"heldout": HELDOUT})
    for way, outcome in ((miners.Honest(), Outcome.PASS), (HeldoutLie(), Outcome.FAIL)):
        world = World(spec, {2: way}, device="cuda/Some GPU/cuda1/torch1")
        world.train()
        bench = await open_bench(world)
        result = await bench.audit(2, AuditKind.OP, seq=bench.op(2, OpKind.EVAL, 0, FIRST).seq)
        assert result.outcome is outcome
        assert result.profile.startswith("declared/")


def test_each_op_is_paid_a_third_without_a_step() -> None:
    world = trained()
    with_heldout, without = changed(world), changed(world, heldout=())
    for miner in world.miners:
        paid = {receipt.seq for receipt in with_heldout.paid(miner.hotkey)}
        extra = paid - {receipt.seq for receipt in without.paid(miner.hotkey)}
        receipts = [r for r in world.of_epoch(0, miner) if r.seq in extra]
        kind = OpKind.EVAL if miner.stage == world.spec.last_stage else OpKind.FORWARD
        assert [(r.kind, r.microbatch) for r in receipts] == [(kind, FIRST + n) for n in range(HELDOUT)]
        whole = op_flops(
            world.spec,
            receipts[0].model_copy(update={"kind": OpKind.LOSS}),
            weight_gradient=True,
        )
        assert op_flops(world.spec, receipts[0], weight_gradient=False) == whole // 3
    [more, less] = ([work.flops for work in epoch_work(sealed)] for sealed in (with_heldout, without))
    assert all(a > b for a, b in zip(more, less, strict=True))


def test_validators_take_the_loss_from_the_evals_that_count() -> None:
    world = trained()
    losses = [r.loss for r in world.of_epoch(0, world.miners[-1]) if r.kind is OpKind.EVAL]
    assert len(losses) == HELDOUT
    tokens = world.spec.data.tokens
    assert heldout_of(changed(world)) == base_loss([loss or 0 for loss in losses], tokens)
    fewer = changed(world, heldout=world.records[0].heldout[1:])
    assert heldout_of(fewer) == base_loss([loss or 0 for loss in losses[1:]], tokens)
    assert heldout_of(changed(world, heldout=())) is None
    assert check_receipts(fewer) == check_receipts(changed(world)) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"microbatch": 0}, "is one of training"),
        ({"microbatch": FIRST + HELDOUT}, "microbatch 7, and the run has 7"),
        ({"attempts": (0, 0)}, "2 attempts at 3 stages"),
        ({"microbatch": FIRST + 1}, "comes twice"),
    ],
)
def test_a_record_with_impossible_held_out_microbatches_is_broken(change: dict[str, Any], why: str) -> None:
    world = trained()
    first, *rest = world.records[0].heldout
    record = world.records[0].model_copy(update={"heldout": (first.model_copy(update=change), *rest)})
    check_record(world.spec, world.records[0])
    with pytest.raises(SealBroken, match=why):
        check_record(world.spec, record)


def test_one_that_counts_without_its_receipts_or_for_nobody_breaks_the_record() -> None:
    world = trained()
    first, *rest = world.records[0].heldout
    other = first.model_copy(update={"attempts": (0, 1, 0)})
    with pytest.raises(SealBroken, match="nobody was given"):
        check_receipts(changed(world, heldout=(other, *rest)))
    last = world.miners[-1].hotkey
    sealed = changed(world)
    del sealed._by_name[last][0, 0, FIRST, 0, OpKind.EVAL]
    with pytest.raises(SealBroken, match="without a receipt"):
        check_receipts(sealed)


# ---- words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 2])
async def test_a_false_cry_of_nan_of_a_held_out_microbatch_fails(stage: int, open_bench: Open) -> None:
    bench = await open_bench(said(trained(), stage, 0, microbatch=FIRST))
    result = await bench.audit(stage, AuditKind.WORD, seq=1)
    assert (result.outcome, result.expected) == (Outcome.FAIL, "finite values")


async def test_a_true_cry_of_nan_of_a_held_out_microbatch_passes(
    open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await open_bench(said(trained(), 2, 0, microbatch=FIRST))

    def broken(*_: object) -> None:
        raise BadValueError("NaN, made for this test")

    monkeypatch.setattr(Engine, "evaluate", broken)
    assert (await bench.audit(2, AuditKind.WORD, seq=1)).outcome is Outcome.PASS


# ---- bundles ----------------------------------------------------------------------------------------


async def test_a_verdict_on_a_held_out_loss_is_repeated_without_a_server(tmp_path: Path) -> None:
    """The bundle has the receipts of the audited miner alone: the draw follows from them and the record."""
    spec = small_run(schedule={"heldout": HELDOUT}, audit=AuditSpec(ops=100))
    world = World(spec, {2: HeldoutNumber()})
    world.train()
    desk = await Desk.over(world, tmp_path)
    draws = Draws(BLOCK_HASH, LINKS.link(0), KEY.ss58)
    lie = desk.bench.op(2, OpKind.EVAL, 0, FIRST)
    drawn = drawn_tasks(desk.bench.sealed, draws, world.miners[2].hotkey)
    task = next(task for task in drawn if (task.kind, task.seq) == (AuditKind.OP, lie.seq))
    path = await desk.file(2, task, await desk.audit(2, task))
    desk.bench.worker.close()
    assert path is not None
    found = await repeat(path, ReplayOptions(threads=THREADS, max_threads=THREADS), Outside())
    assert (found.faults, found.confirmed) == ([], True)
    assert found.result is not None
    assert (found.result.outcome, found.result.seq) == (Outcome.FAIL, lie.seq)
