"""Runs with `outer.overlap` equal plain references, to the bit, whatever was killed meanwhile."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iota.compute.tokens import Tokens
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
    return small_run(layout={"cuts": [2, 2]}, schedule=schedule, outer=outer, **changes)


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


def assert_same_base(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("precision", ["fp32", "bf16-sr"])
async def test_one_replica_with_a_plain_outer_step_equals_the_run_without_overlap(
    tmp_path: Path, precision: str, state: str
) -> None:
    changes = {"precision": precision, "optimizer": {"state": state}, "outer": {"eta": 1.0, "momentum": 0.0}}
    spec = run_with(**changes)
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
    list(product(["none", "int8", "sparse"], [0.9, 0.0], ["fp32", "bf16-sr"], ["carry", "reset"])),
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
