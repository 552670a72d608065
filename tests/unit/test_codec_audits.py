"""Audits of pseudo-gradients with error feedback: what a miner sends and keeps is encoded again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache

import numpy as np
import pytest

from iota.compute.determinism import device_class
from iota.objects import stage_feedback_bytes
from iota.outer.pseudo_gradient import flatten
from iota.protocol.frames import EvidenceItem
from iota.protocol.merkle import EMPTY
from iota.protocol.messages import AuditKind, Outcome
from iota.reference.pipeline import ReferenceTrainer
from iota.spec import AuditSpec, OuterCodec
from tests.support.audit_benches import Bench, Open, opened
from tests.support.audited_miners import FalseFeedback, Honest, Miner, NudgedDelta, PoisonedDelta
from tests.support.audited_runs import DEVICE, World
from tests.support.small_runs import sample, small_run
from validator.core.audit import needed_pieces
from validator.core.deliveries import Piece
from validator.core.tasks import make_task

LOSSY = [OuterCodec.INT8, OuterCodec.SPARSE]
LIAR = 1
OTHER = device_class("cpu", 999)
"""A device class that this machine has not."""


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with opened() as make:
        yield make


def trained(
    codec: OuterCodec,
    epochs: int = 2,
    way: Honest | None = None,
    device: str = DEVICE,
    rejoin: tuple[int, int] | None = None,
    **changes: object,
) -> World:
    """A run whose miner of stage `LIAR` has its own way; `rejoin` takes the base anew in its last epoch."""
    spec = small_run(outer={"codec": codec}, audit=AuditSpec(commit_every=2), **changes)
    world = World(spec, {} if way is None else {LIAR: way}, device)
    for epoch in range(epochs):
        world.train(epoch, rejoin if epoch == epochs - 1 else None)
    return world


@cache
def honest(codec: OuterCodec, device: str = DEVICE) -> World:
    return trained(codec, device=device)


async def _end(bench: Bench, stage: int = LIAR, step: int = 2) -> tuple[Outcome, str]:
    result = await bench.audit(stage, AuditKind.SEGMENT, step=step)
    return result.outcome, result.reason


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("device", [DEVICE, OTHER])
async def test_an_honest_miners_segments_pass_in_a_later_epoch_and_its_feedback_is_asked_for(
    codec: OuterCodec, device: str, open_bench: Open
) -> None:
    bench = await open_bench(honest(codec, device), 1)
    for stage in range(3):
        assert await bench.check(stage) is None
        for step in (0, 2):
            assert (await _end(bench, stage, step))[0] is Outcome.PASS
    assert (EvidenceItem.FEEDBACK, 0) in bench.asked
    miner = bench.world.miners[0]
    assert len(bench.world.held[1, miner.hotkey]) == stage_feedback_bytes(bench.world.spec, 0)


@pytest.mark.parametrize("codec", OuterCodec)
async def test_a_first_epoch_and_a_run_without_a_codec_need_no_feedback(
    codec: OuterCodec, open_bench: Open
) -> None:
    epoch = 1 if codec is OuterCodec.NONE else 0
    bench = await open_bench(trained(codec, epoch + 1), epoch)
    assert (await _end(bench))[0] is Outcome.PASS
    assert EvidenceItem.FEEDBACK not in {item for item, _ in bench.asked}
    made = [r.commitment for r in bench.sealed.commits(*_last_life(bench)) if r.commitment is not None]
    assert [c.feedback == EMPTY for c in made[:-1]] == [True] * (len(made) - 1)
    assert (made[-1].feedback == EMPTY) is (codec is OuterCodec.NONE)


def _last_life(bench: Bench) -> tuple[str, object]:
    hotkey = bench.world.miners[LIAR].hotkey
    return hotkey, bench.sealed.last_life(hotkey)


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("outer", [{}, {"eta": 0.7, "momentum": 0.9, "momentum_warmup": 2}])
def test_bases_of_a_run_with_a_codec_are_those_of_one_process_to_the_bit(
    codec: OuterCodec, outer: dict[str, float]
) -> None:
    spec = small_run(outer={"codec": codec, **outer})
    world, reference = World(spec), ReferenceTrainer(spec)
    for epoch in range(3):
        world.train(epoch)
        reference.run_epoch(epoch, sample(spec))
        for stage in range(spec.layout.stages):
            made = reference.states()[stage].weights
            assert np.array_equal(flatten(made).numpy(), world.outer[stage].weights)


@pytest.mark.parametrize("codec", LOSSY)
async def test_who_carries_feedback_is_asked_for_it_early(codec: OuterCodec, open_bench: Open) -> None:
    bench = await open_bench(honest(codec), 1)
    hotkey = bench.world.miners[LIAR].hotkey
    [first, *_] = bench.sealed.segments(hotkey)
    task = make_task(AuditKind.SEGMENT, first.seq, first.first)
    assert Piece.feedback(0) in needed_pieces(bench.sealed, hotkey, task)


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("way", [PoisonedDelta(1.5), NudgedDelta()], ids=["scaled", "nudged"])
async def test_a_false_pseudo_gradient_fails(codec: OuterCodec, way: Honest, open_bench: Open) -> None:
    """One value that is nudged by its last bit may be sent as before: then what is kept shows it, or nothing
    is false."""
    bench = await open_bench(trained(codec, 1, way))
    outcome, reason = await _end(bench)
    if isinstance(way, PoisonedDelta) or outcome is Outcome.FAIL:
        assert outcome is Outcome.FAIL
        assert "pseudo-gradient" in reason


@pytest.mark.parametrize("codec", LOSSY)
async def test_feedback_that_the_pseudo_gradient_does_not_leave_fails(
    codec: OuterCodec, open_bench: Open
) -> None:
    bench = await open_bench(trained(codec, 1, FalseFeedback()))
    outcome, reason = await _end(bench)
    assert outcome is Outcome.FAIL
    assert reason == "the error feedback that it committed to is not what its pseudo-gradient leaves"


async def test_feedback_that_is_not_delivered_is_undelivered(open_bench: Open) -> None:
    bench = await open_bench(honest(OuterCodec.SPARSE), 1, feedback=lambda miner, joined: None)
    outcome, reason = await _end(bench)
    assert (outcome, reason) == (
        Outcome.UNDELIVERED, "its error feedback at the epoch's start did not come in time",
    )  # fmt: skip


@pytest.mark.parametrize("bad", ["short", "other", "NaN"])
async def test_other_feedback_than_it_committed_to_fails(bad: str, open_bench: Open) -> None:
    world = honest(OuterCodec.SPARSE)

    def other(miner: Miner, joined: int) -> bytes:
        data = world.held[1, miner.hotkey]
        return {"short": data[:-2], "other": bytes(len(data)), "NaN": b"\xc0\x7f" + data[2:]}[bad]

    bench = await open_bench(world, 1, feedback=other)
    outcome, reason = await _end(bench)
    assert outcome is Outcome.FAIL
    assert reason.startswith("the error feedback that it began with")


async def test_who_takes_the_base_anew_begins_without_feedback(open_bench: Open) -> None:
    bench = await open_bench(trained(OuterCodec.SPARSE, 2, rejoin=(LIAR, 1)), 1)
    assert await bench.check(LIAR) is None
    assert (await _end(bench))[0] is Outcome.PASS
    assert EvidenceItem.FEEDBACK not in {item for item, _ in bench.asked}


async def test_feedback_that_did_not_end_the_last_epoch_shows_without_a_draw(open_bench: Open) -> None:
    world = World(small_run(outer={"codec": "sparse"}))
    world.train(0)
    liar = world.miners[LIAR]
    liar.left = [part + np.float32(1) for part in liar.left]
    world.train(1)
    bench = await open_bench(world, 1)
    fault = await bench.check(LIAR)
    assert fault is not None
    assert "error feedback that it began the epoch with" in fault.reason
    assert await bench.check(0) is None


async def test_moments_are_reset_and_feedback_goes_on_where_the_run_says_so(open_bench: Open) -> None:
    world = trained(OuterCodec.SPARSE, 2, optimizer={"state": "reset"})
    [record] = {miner.moments for miner in world.records[1].miners}
    assert record is None
    assert None not in {miner.feedback for miner in world.records[1].miners}
    bench = await open_bench(world, 1)
    assert (await _end(bench))[0] is Outcome.PASS
