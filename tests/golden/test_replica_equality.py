"""Replicas that merge, against plain trainers in one process, to the bit: also without a contribution."""

from __future__ import annotations

import numpy as np
import pytest

from iota.spec import OuterCodec
from tests.support.replica_runs import PlainReplicas, Replicas
from tests.support.small_runs import sample, small_run

OUTER = {"eta": 0.7, "momentum": 0.9}


@pytest.mark.parametrize("codec", OuterCodec)
@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_that_merge_equal_plain_trainers_to_the_bit(codec: OuterCodec, replicas: int) -> None:
    spec = small_run(outer={"codec": codec, **OUTER}, optimizer={"state": "reset"})
    run, plain = (
        Replicas(spec, sample(spec), replicas),
        PlainReplicas(spec, sample(spec), range(replicas), replicas),
    )
    for epoch in range(2):
        run.epoch(epoch)
        plain.epoch(epoch)
    assert not any(run.left_out)
    for mine, theirs in zip(run.bases, plain.bases, strict=True):
        assert np.array_equal(mine.weights, theirs.weights)
        assert np.array_equal(mine.momentum, theirs.momentum)


@pytest.mark.parametrize("codec", OuterCodec)
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_three_replicas_of_which_one_gives_nothing_equal_two_to_the_bit(codec: OuterCodec, gone: int) -> None:
    spec = small_run(outer={"codec": codec, **OUTER}, optimizer={"state": "reset"})
    others = [number for number in range(3) if number != gone]
    run, plain = Replicas(spec, sample(spec), 3), PlainReplicas(spec, sample(spec), others, 3)
    for epoch in range(2):
        run.epoch(epoch, gone=[gone])
        plain.epoch(epoch)
    for mine, theirs in zip(run.bases, plain.bases, strict=True):
        assert np.array_equal(mine.weights, theirs.weights)
        assert np.array_equal(mine.momentum, theirs.momentum)
