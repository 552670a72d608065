"""Runs with `outer.overlap` equal plain references, to the bit, whatever was killed meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iota.compute.tokens import Tokens
from iota.outer.partition import Vector
from iota.reference.overlap import OverlapReference
from iota.reference.pipeline import ReferenceTrainer
from iota.spec import RunSpec
from tests.support.overlapped_replicas import Batches, OverlappedSwarm, overlapped
from tests.support.small_runs import assert_same_bits, sample, small_run

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS = 4


def run_with(**changes: Any) -> RunSpec:
    """A run of two stages with overlap."""
    outer = {"overlap": "one_epoch", **changes.pop("outer", {})}
    schedule = {"epochs": EPOCHS, "steps": 2, "microbatches": 2}
    spec: RunSpec = small_run(layout={"cuts": [2, 2]}, schedule=schedule, outer=outer, **changes)
    return spec


def each_own(spec: RunSpec, replicas: int) -> list[Batches]:
    """Microbatches that differ from replica to replica."""
    given = sample(spec)

    def of(replica: int) -> Batches:
        def batches(epoch: int, step: int, index: int) -> Tokens:
            return given(epoch, step, index * replicas + replica)

        return batches

    return [of(replica) for replica in range(replicas)]


async def train_all(swarm: OverlappedSwarm) -> None:
    """All epochs: the merge of one is made and applied while the next is trained."""
    merges = None
    for epoch in range(EPOCHS):
        await swarm.begin(epoch)
        await swarm.train(epoch, [0])
        if merges is not None:
            await swarm.apply(merges)
        await swarm.train(epoch, [1])
        merges = await swarm.merge(epoch)
    assert merges is not None
    await swarm.apply(merges)


def assert_same_as(swarm: OverlappedSwarm, reference: OverlapReference) -> None:
    """Weights, moments and bases, of every replica and stage."""
    for pipeline, trainer in zip(swarm.pipelines, reference.trainers, strict=True):
        assert_same_bits([replica.state() for replica in pipeline], trainer.states())
        for replica in pipeline:
            assert_same_base(replica.base(EPOCHS)[0].weights, reference.bases[EPOCHS][replica.stage].weights)


def assert_same_base(found: Vector, expected: Vector) -> None:
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("outer", "precision", "state"),
    [
        ({"eta": 1.0, "momentum": 0.0}, "fp32", "carry"),
        ({"eta": 0.7, "momentum": 0.9, "momentum_warmup": 2}, "bf16-sr", "reset"),
        ({"eta": 0.7, "momentum": 0.9, "codec": "sparse"}, "fp32", "carry"),
    ],
)
async def test_one_replica_equals_the_run_without_overlap(
    tmp_path: Path, outer: dict[str, Any], precision: str, state: str
) -> None:
    spec = run_with(precision=precision, optimizer={"state": state}, outer=outer)
    plain = ReferenceTrainer(spec)
    for epoch in range(EPOCHS):
        plain.run_epoch(epoch, sample(spec))
    async with overlapped(tmp_path, spec, [sample(spec)]) as swarm:
        await train_all(swarm)
        for replica, base in zip(swarm.pipelines[0], plain.bases(), strict=True):
            assert_same_base(replica.base(EPOCHS)[0].weights, base.weights)
            assert {r.epoch for r in replica.receipts()} == set(range(EPOCHS))


@pytest.mark.parametrize(
    ("codec", "momentum", "precision", "state"),
    [
        ("none", 0.9, "fp32", "carry"),
        ("none", 0.0, "bf16-sr", "reset"),
        ("int8", 0.9, "bf16-sr", "carry"),
        ("int8", 0.0, "fp32", "reset"),
        ("sparse", 0.9, "fp32", "reset"),
        ("sparse", 0.0, "bf16-sr", "carry"),
    ],
)
async def test_three_replicas_equal_the_formulas_in_one_process(
    tmp_path: Path, codec: str, momentum: float, precision: str, state: str
) -> None:
    eta = 0.7 if momentum else 1.0
    outer = {"codec": codec, "eta": eta, "momentum": momentum}
    spec = run_with(precision=precision, optimizer={"state": state}, outer=outer)
    batches = each_own(spec, 3)
    reference = OverlapReference(spec, 3)
    for epoch in range(EPOCHS):
        reference.run_epoch(epoch, batches)
    async with overlapped(tmp_path, spec, batches) as swarm:
        await train_all(swarm)
        assert_same_as(swarm, reference)


async def test_who_gave_nothing_in_time_begins_the_next_epoch_with_the_anchor(tmp_path: Path) -> None:
    """It had begun with its own start, and begins a second time within the epoch."""
    spec = run_with(outer={"codec": "sparse"})
    batches, merges = each_own(spec, 3), None
    reference = OverlapReference(spec, 3)
    for epoch in range(EPOCHS):
        reference.run_epoch(epoch, batches, merged=[0, 1] if epoch == 1 else None)
    async with overlapped(tmp_path, spec, batches) as swarm:
        for epoch in range(EPOCHS):
            await swarm.begin(epoch)
            if epoch == 2:
                await swarm.train(epoch, [0], only=2)
                await swarm.apply(merges or [])
                await swarm.begin(epoch, anchored=[2], only=2)
                merges = None
            await swarm.train(epoch)
            if merges is not None:
                await swarm.apply(merges)
            merges = await swarm.merge(epoch, [0, 1] if epoch == 1 else None)
        await swarm.apply(merges or [])
        assert_same_as(swarm, reference)


async def test_a_miner_that_is_killed_at_any_point_comes_to_the_same_bits(tmp_path: Path) -> None:
    """It goes on from its disk, and repeats what the orchestrator has no receipt for."""
    spec = run_with(outer={"codec": "int8"})
    batches = each_own(spec, 2)
    reference = OverlapReference(spec, 2)
    for epoch in range(EPOCHS):
        reference.run_epoch(epoch, batches)
    async with overlapped(tmp_path, spec, batches) as swarm:
        await swarm.begin(0)
        await swarm.train(0)
        swarm.restart(0)  # at the end of an epoch: nothing of the next one is on the disk
        await swarm.begin(0, only=0)
        await swarm.train(0, only=0)
        merges = await swarm.merge(0)
        await swarm.begin(1)
        await swarm.train(1, [0])
        swarm.restart(0)  # in the middle, before the merge
        await swarm.begin(1, only=0)
        await swarm.train(1, [0], only=0)
        await swarm.apply(merges)
        swarm.restart(0)  # in the middle, after the merge
        await swarm.begin(1, only=0)
        await swarm.train(1, [0], only=0)
        await swarm.train(1, [1])
        swarm.restart(0)  # at the end, with the base of the next anchor
        await swarm.begin(1, only=0)
        await swarm.train(1, only=0)
        merges = await swarm.merge(1)
        await swarm.apply(merges, only=0)
        await swarm.begin(2)
        swarm.restart(0)  # the own start is on the disk; nobody knows of it: the epoch before is repeated
        await swarm.begin(1, only=0)
        await swarm.train(1, only=0)
        await swarm.begin(2, only=0)
        await swarm.apply(merges, only=1)
        await swarm.train(2)
        merges = await swarm.merge(2)
        await swarm.begin(3)
        await swarm.apply(merges)
        await swarm.train(3)
        await swarm.apply(await swarm.merge(3))
        assert_same_as(swarm, reference)
        for replica in swarm.all():
            keys = [receipt.key for receipt in replica.receipts()]
            assert len(set(keys)) == len(keys), "nothing is receipted twice"
