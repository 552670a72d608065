"""Audits of real epochs: honest work passes to the bit, each cheat fails at its first false op."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
from blake3 import blake3

from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.state import StageState, state_bytes
from iota.identity.signatures import signing_bytes
from iota.objects import FrameKey
from iota.protocol.frames import Direction, FrameName, FrameNotice
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.protocol.records import Word
from iota.protocol.words import WORD_DOMAIN, signed_word
from iota.store import OUTAGES
from tests.support import audit_benches as benches
from tests.support import audited_miners as miners
from tests.support.audited_runs import DEVICE, World
from tests.support.small_runs import small_run
from validator.core.results import EVIDENCE, EvidenceMissing
from validator.core.sealed import SealBroken
from validator.core.tasks import drawn_tasks

Open = Callable[..., Coroutine[Any, Any, benches.Bench]]


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    opened: list[benches.Bench] = []

    async def make(world: World, epoch: int = 0, **options: Any) -> benches.Bench:
        opened.append(await benches.bench(world, epoch, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.worker.close()


@cache
def honest(pipeline: str, epochs: int = 1, optimizer: str = "adamw", device: str = DEVICE) -> World:
    """Trained once for all tests; nobody changes it."""
    spec = small_run(schedule={"pipeline": pipeline}, optimizer={"kind": optimizer, "state": "carry"})
    world = World(spec, device=device)
    for epoch in range(epochs):
        world.train(epoch)
    return world


def cheating(way: miners.Honest, stage: int, pipeline: str = "sync") -> World:
    world = World(small_run(schedule={"pipeline": pipeline}), {stage: way})
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
    assert audited == 5 * 9  # two stages with FORWARD and BACKWARD, one with LOSS; 3 steps x 3 microbatches


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
async def test_every_honest_step_passes_to_the_bit(pipeline: str, optimizer: str, open_bench: Open) -> None:
    bench = await open_bench(honest(pipeline, 1, optimizer))
    for stage in range(3):
        for step in range(3):
            result = await bench.audit(stage, AuditKind.STEP, step=step)
            assert (result.outcome, result.profile) == (Outcome.PASS, "exact"), result


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
async def test_honest_epochs_pass_from_base_to_pseudo_gradient(pipeline: str, open_bench: Open) -> None:
    bench = await open_bench(honest(pipeline))
    for stage in range(3):
        result = await bench.audit(stage, AuditKind.EPOCH)
        assert (result.outcome, result.profile) == (Outcome.PASS, "exact"), result


async def test_a_later_epoch_is_replayed_from_its_stored_base_and_carried_moments(open_bench: Open) -> None:
    bench = await open_bench(honest("delayed", 2), 1)
    for stage in range(3):
        assert (await bench.audit(stage, AuditKind.EPOCH)).outcome is Outcome.PASS
        assert (await bench.audit(stage, AuditKind.STEP, step=0)).outcome is Outcome.PASS


async def test_another_device_class_is_compared_by_sketch(open_bench: Open) -> None:
    bench = await open_bench(honest("delayed", 1, "adamw", "cuda/Some GPU/cuda1/torch1"))
    for kind in (AuditKind.STEP, AuditKind.EPOCH):
        result = await bench.audit(1, kind, step=1)
        assert (result.outcome, result.profile) == (Outcome.PASS, "sketch/0.01"), result
    for op in (OpKind.FORWARD, OpKind.BACKWARD):
        result = await bench.audit(1, AuditKind.OP, step=1, seq=bench.op(1, op, 1).seq)
        assert (result.outcome, result.profile) == (Outcome.PASS, "sketch/0.01"), result


async def test_nothing_is_found_in_honest_records(open_bench: Open) -> None:
    bench = await open_bench(honest("delayed", 2), 1)
    for miner in bench.world.miners:
        assert await bench.check(miner.stage) is None


# ---- cheats -----------------------------------------------------------------------------------


async def test_noise_fails_at_the_first_audited_forward(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.Noise(), 1))
    receipt = bench.op(1, OpKind.FORWARD, 2)
    result = await bench.audit(1, AuditKind.OP, step=2, seq=receipt.seq)
    assert (result.outcome, result.seq, result.found) == (Outcome.FAIL, receipt.seq, receipt.output)


async def test_those_who_work_on_a_cheats_output_pass(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.Noise(), 1))
    for stage in (0, 2):
        result = await bench.audit(stage, AuditKind.EPOCH)
        assert result.outcome is Outcome.PASS, result
    assert not bench.sealed.faults


async def test_noise_fails_across_device_classes_too(open_bench: Open) -> None:
    world = World(small_run(), {1: miners.Noise()}, device="cuda/Some GPU/cuda1/torch1")
    # A cheat that wants to pass by sketch must sketch what it sends.
    world.miners[1].way.output = _sketched_noise  # type: ignore[method-assign]
    world.train()
    bench = await open_bench(world)
    receipt = bench.op(1, OpKind.FORWARD, 0)
    result = await bench.audit(1, AuditKind.OP, step=0, seq=receipt.seq)
    assert (result.outcome, result.profile) == (Outcome.FAIL, "sketch/0.01")


def _sketched_noise(miner: Any, mb: Any, kind: OpKind, output: Any) -> Any:
    made = miners.Noise.output(miners.Noise(), miner, mb, kind, output)
    return made if made is output else replace(made, sketch=tuple(-value for value in output.sketch))


async def test_a_right_sketch_beside_false_bytes_fails_across_device_classes(open_bench: Open) -> None:
    world = World(small_run(), {1: miners.Noise()}, device="cuda/Some GPU/cuda1/torch1")
    world.train()
    bench = await open_bench(world)
    receipt = bench.op(1, OpKind.FORWARD, 0)
    result = await bench.audit(1, AuditKind.OP, step=0, seq=receipt.seq)
    assert result.outcome is Outcome.FAIL
    assert "not that of what it sent" in result.reason
    # A step or an epoch looks at what was sent as well: not to be drawn by op is no way out.
    for kind in (AuditKind.STEP, AuditKind.EPOCH):
        result = await bench.audit(1, kind, step=0)
        assert (result.outcome, result.seq) == (Outcome.FAIL, receipt.seq), kind
        assert "not that of what it sent" in result.reason


async def test_a_zero_backward_fails_in_the_op_and_in_the_step(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.ZeroBackward(), 1, "delayed"))
    receipt = bench.op(1, OpKind.BACKWARD, 1)
    result = await bench.audit(1, AuditKind.OP, step=1, seq=receipt.seq)
    assert (result.outcome, result.seq) == (Outcome.FAIL, receipt.seq)
    result = await bench.audit(1, AuditKind.STEP, step=1)
    assert (result.outcome, result.seq) == (Outcome.FAIL, receipt.seq)


async def test_a_skipped_step_shows_in_the_receipts_alone(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.SkipsStep(), 1))
    fault = await bench.check(1)
    assert fault is not None
    assert (fault.hotkey, fault.seq) == (bench.world.miners[1].hotkey, bench.op(1, OpKind.STEP, 0).seq)


async def test_a_skipped_step_fails_its_replay(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.SkipsStep(), 1, "delayed"))
    for kind, step in ((AuditKind.STEP, 1), (AuditKind.EPOCH, 0)):
        result = await bench.audit(1, kind, step=step)
        assert result.outcome is Outcome.FAIL
        assert result.seq == bench.op(1, OpKind.STEP, step).seq


async def test_stale_weights_fail_at_the_first_op_that_used_them(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.StaleWeights(), 1))
    first = bench.op(1, OpKind.FORWARD, 1)
    result = await bench.audit(1, AuditKind.OP, step=1, seq=first.seq)
    assert (result.outcome, result.seq) == (Outcome.FAIL, first.seq)
    result = await bench.audit(1, AuditKind.EPOCH)
    assert (result.outcome, result.seq) == (Outcome.FAIL, first.seq)


async def test_a_false_loss_fails(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.FalseLoss(), 2))
    receipt = bench.op(2, OpKind.LOSS, 0)
    result = await bench.audit(2, AuditKind.OP, step=0, seq=receipt.seq)
    assert (result.outcome, result.seq, result.found) == (Outcome.FAIL, receipt.seq, repr(receipt.loss))


async def test_a_scaled_pseudo_gradient_fails_the_epoch(open_bench: Open) -> None:
    bench = await open_bench(cheating(miners.PoisonedDelta(), 0))
    result = await bench.audit(0, AuditKind.EPOCH)
    assert result.outcome is Outcome.FAIL
    assert "pseudo-gradient" in result.reason


# ---- evidence that is withheld, missing or false ------------------------------------------------


async def test_a_snapshot_that_does_not_come_is_undelivered(open_bench: Open) -> None:
    bench = await open_bench(honest("sync"), deliver=lambda miner, version: None)
    receipt = bench.op(0, OpKind.FORWARD, 1)
    result = await bench.audit(0, AuditKind.OP, step=1, seq=receipt.seq)
    assert result.outcome is Outcome.UNDELIVERED
    assert "did not come in time" in result.reason


async def test_a_snapshot_that_its_step_did_not_commit_to_fails(open_bench: Open) -> None:
    def base(miner: miners.Miner, version: int) -> bytes:
        return state_bytes(StageState(miner.snapshots[0].weights, miner.snapshots[version].moments))

    bench = await open_bench(honest("sync"), deliver=base)
    receipt = bench.op(0, OpKind.FORWARD, 1)
    result = await bench.audit(0, AuditKind.OP, step=1, seq=receipt.seq)
    assert result.outcome is Outcome.FAIL
    assert result.seq == bench.op(0, OpKind.STEP, 0).seq


async def test_a_frame_that_the_store_lost_accuses_nobody(open_bench: Open) -> None:
    world = World(small_run())
    world.train()
    bench = await open_bench(world)
    receipt = bench.op(1, OpKind.FORWARD, 0)
    del world.store[f"{world.run}/frames/0/0/0.0/0.f"]
    result = await bench.audit(1, AuditKind.OP, step=0, seq=receipt.seq)
    assert (result.outcome, result.profile) == (Outcome.INCONCLUSIVE, EVIDENCE)


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
    world = World(small_run(), {0: _LiesInReceipts()})
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
    world = World(small_run())
    record = world.train()
    world.records[0] = record.model_copy(update={"root": "22" * 32})
    with pytest.raises(SealBroken, match="not those that were sealed"):
        await open_bench(world)


async def test_a_base_that_the_seed_does_not_give_is_refused(open_bench: Open) -> None:
    world = World(small_run())
    world.bases[0] = world.bases[0].model_copy(update={"digest": "33" * 32})
    world.train()
    bench = await open_bench(world)
    with pytest.raises(EvidenceMissing, match="seed"):
        await bench.evidence.base(bench.base(0))


# ---- words ---------------------------------------------------------------------------------------


def said(world: World, stage: int, step: int, *, by: int | None = None) -> World:
    """The same run, whose record has a word of the miner of `stage`, signed by that of stage `by`."""
    names = [
        FrameName(epoch=0, step=step, microbatch=1, attempt=0, stage=at, direction=direction)
        for at, direction in ((stage - 1, Direction.FORWARD), (stage + 1, Direction.BACKWARD))
        if 0 <= at < len(world.miners)
    ]
    data = [world.store[str(FrameKey(world.run, name))] for name in names]
    signer = world.miners[stage if by is None else by].key
    message = signing_bytes(WORD_DOMAIN, signed_word(world.run, 0, step, 1))
    word = Word(
        hotkey=world.miners[stage].hotkey,
        stage=stage,
        epoch=0,
        step=step,
        microbatch=1,
        attempt=0,
        inputs=tuple(
            FrameNotice(name=name, digest=blake3(each).hexdigest(), size=len(each))
            for name, each in zip(names, data, strict=True)
        ),
        signature=signer.sign(message).hex(),
    )
    spoken = copy.copy(world)
    spoken.records = {0: world.records[0].model_copy(update={"words": (word,)})}
    return spoken


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("step", [0, 2])
async def test_a_false_cry_of_nan_fails_in_the_replay(stage: int, step: int, open_bench: Open) -> None:
    bench = await open_bench(said(honest("sync"), stage, step))
    result = await bench.audit(stage, AuditKind.WORD, step=step, seq=1)
    assert (result.outcome, result.expected) == (Outcome.FAIL, "finite values")
    assert "replay is finite" in result.reason


async def test_a_true_cry_of_nan_passes(open_bench: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await open_bench(said(honest("sync"), 1, 0))

    def broken(*_: object) -> None:
        raise BadValueError("NaN, made for this test")

    monkeypatch.setattr(Engine, "forward", broken)
    assert (await bench.audit(1, AuditKind.WORD, step=0, seq=1)).outcome is Outcome.PASS


async def test_every_word_is_repeated_without_a_draw_and_one_that_nobody_signed_is_none(
    open_bench: Open,
) -> None:
    bench = await open_bench(said(honest("sync"), 1, 0))
    miner = bench.world.miners[1].hotkey
    tasks = [t for t in drawn_tasks(bench.sealed, "ab" * 32, "cd" * 32, miner) if t.kind is AuditKind.WORD]
    assert [(task.name, task.seq, task.step) for task in tasks] == [("word:1", 1, 0)]
    made_up = await open_bench(said(honest("sync"), 1, 0, by=2))
    assert made_up.sealed.words(miner) == ()


async def test_a_word_whose_frames_the_store_lost_accuses_nobody(open_bench: Open) -> None:
    world = said(honest("sync"), 1, 0)
    world.store = {key: data for key, data in world.store.items() if "/frames/" not in key}
    bench = await open_bench(world)
    assert (await bench.audit(1, AuditKind.WORD, step=0, seq=1)).outcome is Outcome.INCONCLUSIVE
