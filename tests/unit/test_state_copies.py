"""Copies of an engine's state: what a commitment and a snapshot rest on."""

from __future__ import annotations

import pytest
import torch

from iota.compute import Microbatch
from iota.compute.engine import Engine
from iota.compute.state import StageState, tensors_digest
from iota.spec import RunSpec
from tests.support.small_engines import read
from tests.support.small_runs import assert_same_bits, sample, small_run

SYNC = small_run(layout={"cuts": [4]})
DELAYED = small_run(layout={"cuts": [4]}, schedule={"pipeline": "delayed", "steps": 4})


def started(spec: RunSpec, device: str = "cpu") -> Engine:
    engine = Engine(spec, 0, device=device)
    engine.load(StageState.initial(spec, 0), version=0)
    return engine


def run_op(engine: Engine, step: int) -> None:
    spec = engine.spec
    engine.loss(Microbatch(0, step, 0), spec.weight_version(step), None, sample(spec)(0, step, 0))


def run_step(engine: Engine, step: int) -> None:
    run_op(engine, step)
    engine.step(step, 1, 0.01)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_delayed_run_goes_on_from_a_copy_that_holds_the_weights_before(ahead: bool) -> None:
    """`ahead`: the next step's op has run when the version is made, as in a pipeline that is full."""
    engine = started(DELAYED)
    run_op(engine, 0)
    if ahead:
        run_op(engine, 1)
    engine.step(0, 1, 0.01)
    copied = engine.copy_state().result()
    assert_same_bits([StageState(copied.before)], [StageState.initial(DELAYED, 0)])
    replay = Engine(DELAYED, 0)
    replay.load(copied, version=1)
    assert replay.versions == (0, 1)
    if not ahead:
        run_op(engine, 1)
    run_op(replay, 1)
    assert read(engine.step(1, 1, 0.01)) == read(replay.step(1, 1, 0.01))
    for step in (2, 3):
        run_step(engine, step)
        run_step(replay, step)
    assert_same_bits([replay.state()], [engine.state()])
    assert engine.versions == replay.versions == (3, 4)


@pytest.mark.parametrize("spec", [SYNC, DELAYED], ids=["sync", "delayed"])
def test_later_steps_do_not_change_a_copy(spec: RunSpec) -> None:
    engine = started(spec)
    run_step(engine, 0)
    copy, then = engine.copy_state(), engine.state()
    for step in (1, 2):
        run_step(engine, step)
    assert_same_bits([copy.result()], [then])
    assert tensors_digest(copy.result().before) == tensors_digest(then.before)
    assert tensors_digest(then.weights) != tensors_digest(engine.state().weights)


def test_a_base_and_a_run_in_sync_have_no_weights_before() -> None:
    engine = started(SYNC)
    assert not engine.copy_state().result().before
    run_step(engine, 0)
    assert not engine.copy_state().result().before
    assert not started(DELAYED).copy_state().result().before


def test_weights_that_a_step_left_as_they_were_are_copied_once() -> None:
    engine = started(DELAYED)
    engine.step(0, 0, 0.01)
    copied = engine.copy_state().result()
    assert all(copied.before[name] is weight for name, weight in copied.weights.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spec", [SYNC, DELAYED], ids=["sync", "delayed"])
def test_a_copy_from_a_gpu_is_what_the_gpu_held(spec: RunSpec) -> None:
    engine, other = started(spec, "cuda"), started(spec, "cuda")
    for each in (engine, other):
        run_step(each, 0)
    copy = engine.copy_state()
    run_step(engine, 1)
    assert all(tensor.is_pinned() for tensor in copy.result().weights.values())
    assert_same_bits([copy.result()], [other.state()])
