"""A pipeline of engines equals one process, to the bit (training.md, equality tests)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3

from iota.compute import Microbatch
from iota.compute.commitment import commitment
from iota.compute.engine import Engine
from iota.compute.evaluate import Evaluation, evaluate_model
from iota.compute.state import StageState, load_state, save_state
from iota.model.graph_sizes import LOSS_CHUNK
from iota.model.initial import initial_weights
from iota.model.weight_dtype import as_weights
from iota.outer import OuterState, outer_step
from iota.outer.pseudo_gradient import flatten, pseudo_gradient, unflatten
from iota.outer.weighted_mean import weighted_mean
from iota.protocol.heldout import base_loss
from iota.reference.pipeline import ReferenceTrainer
from iota.spec import RunSpec
from tests.support.small_runs import EnginePipeline, assert_close, assert_same_bits, sample, small_run

pytestmark = pytest.mark.usefixtures("one_thread")


def compare(spec: RunSpec) -> None:
    pipeline, reference = EnginePipeline(spec), ReferenceTrainer(spec)
    pipeline.run_steps(0)
    losses = reference.run_steps(0, sample(spec))
    assert_same_bits(pipeline.states(), reference.states())
    assert {mb: losses[mb.step][mb.index] for mb in pipeline.losses} == pipeline.losses


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
@pytest.mark.parametrize("wire", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("codec", ["identity", "resbm", "resbm-anchor"])
def test_stages_equal_the_model_unsplit(codec: str, wire: str, pipeline: str, kind: str) -> None:
    compare(
        small_run(
            boundary={"codec": codec, "wire": wire},
            schedule={"pipeline": pipeline},
            optimizer={"kind": kind},
        )
    )


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
@pytest.mark.parametrize("precision", ["bf16-master", "bf16-sr"])
def test_stages_in_bf16_equal_the_model_unsplit(precision: str, pipeline: str, kind: str) -> None:
    schedule = {"pipeline": pipeline}
    compare(small_run(precision=precision, schedule=schedule, optimizer={"kind": kind}))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
@pytest.mark.parametrize("sums", ["fp32", "bf16"])
@pytest.mark.parametrize("moments", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("precision", ["fp32", "bf16-master", "bf16-sr"])
def test_stages_with_small_moments_and_sums_equal_the_model_unsplit(
    precision: str, moments: str, sums: str, pipeline: str, kind: str
) -> None:
    optimizer = {"kind": kind, "moments": moments, "gradient_sums": sums}
    compare(small_run(precision=precision, schedule={"pipeline": pipeline}, optimizer=optimizer))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("moments", ["bf16", "int8"])
@pytest.mark.parametrize("precision", ["fp32", "bf16-master", "bf16-sr"])
def test_a_segment_repeats_from_a_snapshot_to_the_bit(
    tmp_path: Path, precision: str, moments: str, kind: str
) -> None:
    """As a validator repeats it: from the file of the state at its start."""
    optimizer = {"kind": kind, "moments": moments, "gradient_sums": "bf16"}
    spec = small_run(precision=precision, schedule={"pipeline": "delayed"}, optimizer=optimizer)
    first, again = EnginePipeline(spec), EnginePipeline(spec)
    first.run_some(0, range(2))
    for stage, (mine, theirs) in enumerate(zip(again.engines, first.engines, strict=True)):
        state, path = theirs.state(), tmp_path / str(stage)
        save_state(state, path, commitment(state, spec.outer.part_elements))
        mine.load(load_state(path, spec, stage), version=2)
    steps = range(2, spec.schedule.steps)
    first.run_some(0, steps)
    again.run_some(0, steps)
    assert_same_bits(again.states(), first.states())


def test_ops_on_bf16_weights_are_those_on_fp32_weights_of_the_same_values() -> None:
    """Payloads, losses and sums of gradients, to the bit but for what the table's one rounding cuts."""
    found = []
    for precision in ("bf16-master", "bf16-sr"):
        pipeline = EnginePipeline(small_run(precision=precision))
        for stage, engine in enumerate(pipeline.engines):
            rounded = StageState.initial(small_run(precision="bf16-sr"), stage).weights
            held = as_weights(pipeline.spec, rounded)
            engine.load(StageState(held), version=0)
        mb = Microbatch(0, 0, 0)
        pipeline.forward(mb)
        pipeline.backward(mb)
        sums = [engine._steps[0].sums for engine in pipeline.engines]
        found.append((pipeline.losses[mb], sums))
    (loss, master), (same, rounded_sums) = found
    assert loss == same
    for theirs, mine in zip(master, rounded_sums, strict=True):
        for name, total in mine.items():
            assert total.dtype is torch.float32
            expected = theirs[name].bfloat16().float() if name == "embed.weight" else theirs[name]
            assert torch.equal(total, expected), name


@pytest.mark.parametrize("precision", ["fp32", "bf16-master", "bf16-sr"])
def test_a_loss_of_several_chunks_equals_that_of_the_model_unsplit(precision: str) -> None:
    data = {"sequence_length": LOSS_CHUNK // 2 + 100}
    compare(small_run(precision=precision, data=data, schedule={"steps": 2, "microbatches": 2}))


def test_weights_do_not_depend_on_the_cut_with_an_exact_wire() -> None:
    exact = {"codec": "identity", "wire": "fp32"}
    # without clipping: its groups are the stages
    one, three = (
        small_run(layout={"cuts": cuts}, boundary=exact, optimizer={"clip": None})
        for cuts in ([4], [1, 2, 1])
    )
    found: list[dict[str, torch.Tensor]] = []
    for spec in (one, three):
        pipeline = EnginePipeline(spec)
        pipeline.run_steps(0)
        found.append({name: w for state in pipeline.states() for name, w in state.weights.items()})
    assert_close(found[0], found[1], 1e-6)


def test_delayed_differs_from_sync() -> None:
    ends = []
    for kind in ("sync", "delayed"):
        pipeline = EnginePipeline(small_run(schedule={"pipeline": kind}))
        pipeline.run_steps(0)
        ends.append(pipeline.states()[0].weights["embed.weight"])
    assert not torch.equal(*ends)


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize(
    ("precision", "moments", "sums"), [("fp32", "fp32", "fp32"), ("bf16-sr", "int8", "bf16")]
)
def test_two_epochs_equal_one_process_through_the_same_steps(
    precision: str, moments: str, sums: str, state: str
) -> None:
    spec = small_run(
        precision=precision,
        optimizer={"state": state, "kind": "muon", "moments": moments, "gradient_sums": sums},
        outer={"eta": 0.7, "momentum": 0.9, "momentum_warmup": 2},
    )
    pipeline, reference = EnginePipeline(spec), ReferenceTrainer(spec)
    base = [initial_weights(spec, stage) for stage in range(spec.layout.stages)]
    for epoch in range(2):
        base = pipeline.run_epoch(epoch, base)
        reference.run_epoch(epoch, sample(spec))
    for mine, theirs in zip(base, reference.states(), strict=True):
        started = as_weights(spec, mine)
        assert all(torch.equal(started[name], theirs.weights[name]) for name in theirs.weights)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("seed", range(3))
def test_interleaving_of_two_open_steps_changes_no_bit(seed: int, kind: str) -> None:
    spec = small_run(schedule={"pipeline": "delayed"}, optimizer={"kind": kind})
    plain, mixed = EnginePipeline(spec), EnginePipeline(spec)
    plain.run_steps(0)
    run_interleaved(mixed, seed)
    assert_same_bits(mixed.states(), plain.states())


def run_interleaved(pipeline: EnginePipeline, seed: int) -> None:
    """Any order that a miner may choose: backwards of a step ascend, STEP t waits for step t alone."""
    steps, size = pipeline.spec.schedule.steps, pipeline.spec.schedule.microbatches
    generator = torch.Generator().manual_seed(seed)
    forwards, backwards, closed = [0] * steps, [0] * steps, 0
    while closed < steps:
        open_steps = range(closed, min(steps, closed + 2))
        ready = [("f", t) for t in open_steps if forwards[t] < size]
        ready += [("b", t) for t in open_steps if backwards[t] < forwards[t]]
        if backwards[closed] == size:
            ready.append(("s", closed))
        kind, t = ready[int(torch.randint(len(ready), (), generator=generator))]
        if kind == "f":
            pipeline.forward(Microbatch(0, t, forwards[t]))
            forwards[t] += 1
        elif kind == "b":
            pipeline.backward(Microbatch(0, t, backwards[t]))
            backwards[t] += 1
        else:
            pipeline.step(0, t)
            closed += 1


def test_replicas_equal_one_process_on_the_joint_batch() -> None:
    common = {
        "boundary": {"codec": "resbm", "wire": "fp32"},
        "optimizer": {"kind": "sgd", "lr": 0.1, "clip": None, "weight_decay": 0.0},
    }
    joint = small_run(schedule={"steps": 1, "microbatches": 4}, **common)
    half = small_run(schedule={"steps": 1, "microbatches": 2}, **common)
    reference = ReferenceTrainer(joint)
    reference.run_epoch(0, sample(joint))
    for stage, merged in enumerate(merged_replicas(half)):
        assert_close(merged, reference.states()[stage].weights, 1e-5)


def merged_replicas(spec: RunSpec) -> list[dict[str, torch.Tensor]]:
    """Two replicas on the even and the odd microbatches of one step, merged with eta 1 and mu 0."""
    replicas = [EnginePipeline(spec), EnginePipeline(spec)]
    for parity, replica in enumerate(replicas):
        for index in range(2):
            mb = Microbatch(0, 0, 2 * index + parity)
            replica.forward(mb)
            replica.backward(mb)
        replica.step(0, 0)
    merged = []
    for stage in range(spec.layout.stages):
        base = StageState.initial(spec, stage).weights
        parts = {
            f"hk{i}": pseudo_gradient(base, r.engines[stage].state().weights).numpy()
            for i, r in enumerate(replicas)
        }
        mean = weighted_mean(dict.fromkeys(parts, 48), parts.__getitem__)
        outer = OuterState(flatten(base).numpy(), np.zeros_like(mean))
        after = outer_step(outer, mean, 1.0, 0.0)
        merged.append(unflatten(torch.from_numpy(after.weights), base))
    return merged


def test_replaying_a_step_gives_the_same_state() -> None:
    spec = small_run()
    pipeline, again = EnginePipeline(spec), EnginePipeline(spec)
    pipeline.run_steps(0)
    for index in range(spec.schedule.microbatches):
        again.forward(Microbatch(0, 0, index))
        again.backward(Microbatch(0, 0, index))
    for engine in again.engines:
        engine.clear_gradient(0)
    again.run_steps(0)
    assert_same_bits(again.states(), pipeline.states())


@pytest.mark.parametrize(
    ("boundary", "precision"),
    [
        ({"codec": "identity", "wire": "fp32"}, "fp32"),
        ({"codec": "resbm-anchor", "wire": "bf16"}, "fp32"),
        ({"codec": "resbm", "wire": "int8"}, "bf16-master"),
        ({"codec": "resbm-anchor", "wire": "bf16"}, "bf16-sr"),
    ],
)
def test_the_held_out_loss_of_the_pipeline_is_that_of_the_evaluation(
    boundary: dict[str, str], precision: str
) -> None:
    """To the bit for each token. The mean of a microbatch is taken by torch there, by NumPy here."""
    spec = small_run(boundary=boundary, precision=precision, schedule={"heldout": 4})
    states = [StageState.initial(spec, stage) for stage in range(spec.layout.stages)]
    engines = [Engine(spec, stage) for stage in range(spec.layout.stages)]
    for engine, state in zip(engines, states, strict=True):
        engine.load(state, version=0)
    numbers = range(spec.schedule.microbatches, spec.planned(0))
    batches = [sample(spec)(0, 0, number) for number in numbers]
    evaluation = Evaluation(spec, batches)
    for stage, state in enumerate(states):
        assert len(list(evaluation.stage(stage, state))) == len(batches)
    losses = []
    for at, number in enumerate(numbers):
        payload: torch.Tensor | None = None
        for engine in engines:
            made = engine.evaluate(Microbatch(0, 0, number), 0, payload, batches[at])
            payload = made.payload
        assert payload is None
        found = made.read().result()
        assert found.digest == blake3(evaluation.losses[at].tobytes()).hexdigest()
        assert found.loss is not None
        losses.append(found.loss)
    measured = base_loss(losses, spec.data.tokens)
    assert measured is not None
    assert measured.loss == pytest.approx(evaluation.mean, rel=1e-14)
    assert evaluate_model(spec, states, batches) == evaluation.mean
