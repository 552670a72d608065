"""Taking a snapshot as the next version: what the replay of a delayed step rests on."""

from __future__ import annotations

import pytest

from iota.compute import Microbatch, VersionError
from iota.compute.engine import Engine
from iota.compute.state import StageState
from tests.support.small_runs import sample, small_run

SPEC = small_run(layout={"cuts": [4]}, schedule={"pipeline": "delayed"})


def run_steps(engine: Engine, steps: int) -> None:
    for step in range(steps):
        engine.loss(Microbatch(0, step, 0), SPEC.weight_version(step), None, sample(SPEC)(0, step, 0))
        engine.step(step, 1, 0.01, epoch=0)


def engine_at(steps: int) -> Engine:
    engine = Engine(SPEC, 0)
    engine.load(StageState.initial(SPEC, 0), version=0)
    run_steps(engine, steps)
    return engine


def test_a_gradient_at_the_version_before_is_applied_to_an_adopted_snapshot() -> None:
    older, newer = engine_at(1).state(), engine_at(2).state()
    replay = Engine(SPEC, 0)
    replay.load(older, version=1)
    replay.loss(Microbatch(0, 2, 0), 1, None, sample(SPEC)(0, 2, 0))
    replay.adopt(newer, version=2)
    replay.step(2, 1, 0.01, epoch=0)
    expected = engine_at(3).state()
    assert replay.state().weights_digest == expected.weights_digest
    assert replay.state().moments_digest == expected.moments_digest


def test_only_the_next_version_can_be_adopted() -> None:
    engine = engine_at(1)
    with pytest.raises(VersionError, match="does not follow"):
        engine.adopt(engine.state(), version=3)


def test_the_snapshot_itself_stays_as_it_was() -> None:
    snapshot = engine_at(1).state()
    digest = snapshot.weights_digest
    engine = Engine(SPEC, 0)
    engine.load(StageState.initial(SPEC, 0), version=0)
    engine.adopt(snapshot, version=1)
    run = Microbatch(0, 1, 0)
    engine.loss(run, 0, None, sample(SPEC)(0, 1, 0))
    engine.step(1, 1, 0.01, epoch=0)
    assert snapshot.weights_digest == digest
