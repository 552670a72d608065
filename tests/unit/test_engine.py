"""The engine refuses what it must, and leaves everything as it was when it does."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from blake3 import blake3

from iota.codec.errors import PayloadError
from iota.codec.finite_payload import MAX_MAGNITUDE, payload_is_finite
from iota.codec.shapes import payload_shape, payload_size
from iota.codec.wire_dtype import encode_wire
from iota.compute import (
    BadValueError,
    CountError,
    Microbatch,
    MicrobatchError,
    Output,
    VersionError,
)
from iota.compute.engine import UNSENT_EVERY, Engine
from iota.compute.evaluate import evaluate_model
from iota.compute.memory import choose
from iota.compute.stage_pass import StagePass
from iota.compute.state import StageState, tensors_digest
from iota.compute.tokens import Tokens
from iota.planning import stage_needs
from iota.reference.pipeline import ReferenceTrainer
from iota.reference.plain import train_plain
from iota.settings import Activations
from iota.spec import WireDtype
from tests.support.small_engines import loaded, read, tensor, tokens
from tests.support.small_runs import assert_same_bits
from tests.support.small_spec import small_spec

CPU = torch.device("cpu")
MB = Microbatch(epoch=0, step=0, index=0)
LONG = {"manifest": "0" * 64, "sequence_length": 256, "sequences": 32}


def test_ops_need_a_loaded_state() -> None:
    with pytest.raises(VersionError, match="load"):
        Engine(small_spec(), 0).forward(MB, 0, None, tokens(small_spec()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_is_found_when_it_is_read_and_its_sum_is_made_again(bad: float) -> None:
    spec = small_spec()
    engine, clean = loaded(spec), loaded(spec)
    for each in (engine, clean):
        each.forward(MB, 0, None, tokens(spec))
        each.backward(MB, 0, tensor())
    other = dataclasses.replace(MB, index=1)
    engine.forward(other, 0, None, tokens(spec, 1))
    made = engine.backward(other, 0, tensor(bad))
    with pytest.raises(BadValueError, match="the received gradient of microbatch 1 of step 0"):
        read(made)
    engine.discard(other)
    assert engine.summed(0) == [], "the caller sees that the first one must be repeated"
    engine.remember(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor())
    assert read(engine.step(0, 1, 0.1)) == read(clean.step(0, 1, 0.1))
    assert_same_bits([engine.state()], [clean.state()])


def test_a_gradient_that_overflows_inside_the_stage_discards_the_sum() -> None:
    spec = small_spec()
    state = StageState.initial(spec, 0)
    state.weights["boundary.0.encode.outer.weight"].fill_(1e20)
    engine = Engine(spec, 0)
    engine.load(state, version=0)
    other = dataclasses.replace(MB, index=1)
    engine.remember(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor(1e-30))
    engine.remember(other, 0, None, tokens(spec))
    with pytest.raises(BadValueError, match="in the gradient"):
        read(engine.backward(other, 0, tensor(1e30)))
    engine.discard(other)
    assert engine.summed(0) == [], "the caller sees that the first one must be repeated"
    engine.remember(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor(1e-30))
    assert engine.summed(0) == [MB]


@pytest.mark.parametrize(("activation", "gradient"), [(1e10, 1e10), (1.0, 0.9 * MAX_MAGNITUDE)])
def test_frames_within_the_bound_of_values_do_not_end_a_state_at_its_step(
    activation: float, gradient: float
) -> None:
    spec = small_spec(layout={"cuts": [1, 1, 1]}, data=LONG)
    engine = loaded(spec, 1)
    shape = payload_shape(spec)
    token = torch.where(torch.arange(shape[2]) % 3 == 0, -1.0, 1.0)
    sent = [encode_wire(size * token.expand(shape), spec.boundary.wire) for size in (activation, gradient)]
    assert all(payload_is_finite(each.numpy().tobytes(), shape, spec.boundary.wire) for each in sent)
    engine.forward(MB, 0, sent[0], tokens(spec))
    engine.backward(MB, 0, sent[1])
    largest = math.sqrt(torch.finfo(torch.float32).max)
    assert largest < read(engine.step(0, 1, 0.01)).gradient_norm < math.inf


def test_a_bad_stage_input_is_refused() -> None:
    spec = small_spec()
    engine = loaded(spec, 1)
    with pytest.raises(BadValueError, match="the stage input"):
        read(engine.loss(MB, 0, tensor(float("nan")), tokens(spec)))
    engine.discard(MB)
    assert engine.summed(0) == []


def test_a_bad_output_is_refused_and_not_in_flight() -> None:
    spec = small_spec()
    state = StageState.initial(spec, 0)
    state.weights["embed.weight"].fill_(float("inf"))
    engine = Engine(spec, 0)
    engine.load(state, version=0)
    with pytest.raises(BadValueError, match="the output"):
        read(engine.forward(MB, 0, None, tokens(spec)))
    engine.discard(MB)
    with pytest.raises(MicrobatchError):
        engine.backward(MB, 0, tensor())


def test_a_payload_of_another_size_is_refused_and_the_microbatch_stays_in_flight() -> None:
    spec = small_spec()
    engine = loaded(spec)
    engine.forward(MB, 0, None, tokens(spec))
    with pytest.raises(PayloadError):
        engine.backward(MB, 0, tensor()[:-1])
    engine.backward(MB, 0, tensor())
    assert engine.summed(0) == [MB]


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 8), int), np.full((2, 9), 50), np.full((2, 9), -1), np.zeros((2, 9))]
)
def test_tokens_that_are_not_the_runs_are_refused(wrong: Tokens) -> None:
    with pytest.raises(PayloadError):
        loaded(small_spec()).forward(MB, 0, None, wrong)


def test_a_microbatch_is_counted_once() -> None:
    spec = small_spec()
    engine = loaded(spec)
    engine.forward(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor())
    engine.forward(MB, 0, None, tokens(spec))
    with pytest.raises(MicrobatchError, match="already"):
        engine.backward(MB, 0, tensor())


def test_a_dropped_microbatch_has_no_backward() -> None:
    spec = small_spec()
    engine = loaded(spec)
    engine.forward(MB, 0, None, tokens(spec))
    engine.drop(MB)
    with pytest.raises(MicrobatchError, match="no forward"):
        engine.backward(MB, 0, tensor())


def test_a_remembered_input_gives_the_gradient_of_a_kept_graph() -> None:
    spec = small_spec()
    kept, remembered = loaded(spec), loaded(spec)
    kept.forward(MB, 0, None, tokens(spec))
    remembered.remember(MB, 0, None, tokens(spec))
    assert read(kept.backward(MB, 0, tensor())) == read(remembered.backward(MB, 0, tensor()))


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
def test_auto_takes_the_first_policy_that_there_is_memory_for(
    pipeline: str, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(schedule={"pipeline": pipeline})
    engine, needs = loaded(spec, stage, activations=Activations.AUTO), stage_needs(spec, stage)
    ran: list[Activations] = []
    graph = StagePass.graph

    def noted(own: StagePass, weights: Any, inputs: Any, activations: Activations) -> Any:
        ran.append(activations)
        return graph(own, weights, inputs, activations)

    monkeypatch.setattr(StagePass, "graph", noted)
    # A version is in memory already, and in `delayed` another comes.
    to_come = needs.gradients + (needs.weights // 2 if pipeline == "delayed" else 0)
    outputs = []
    for policy in (Activations.KEEP, Activations.SELECTIVE, Activations.RECOMPUTE):
        kept = needs.kept[policy]
        free = to_come + needs.graphs * kept.graph + kept.working
        for available in (free, free - 1):
            memory = SimpleNamespace(available=available)
            monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: memory)
            outputs.append(_one_microbatch(engine, stage))
    assert outputs == [outputs[0]] * 6
    assert ran == [
        Activations.KEEP,
        *[Activations.SELECTIVE] * 2,
        *[Activations.RECOMPUTE] * 3,
    ]


def _one_microbatch(engine: Engine, stage: int) -> list[Output]:
    spec = engine.spec
    if stage == spec.last_stage:
        made = [read(engine.loss(MB, 0, tensor(), tokens(spec)))]
    else:
        made = [read(engine.forward(MB, 0, None, tokens(spec))), read(engine.backward(MB, 0, tensor()))]
    engine.clear_gradient(0)
    return made


def test_auto_counts_the_graphs_that_are_held() -> None:
    cpu = torch.device("cpu")
    kept = stage_needs(small_spec(), 0).kept
    free = psutil.virtual_memory().available
    assert choose(cpu, kept, graphs=1, besides=0) is Activations.KEEP
    assert (
        choose(cpu, kept, graphs=free // kept[Activations.KEEP].graph + 1, besides=0) is not Activations.KEEP
    )
    assert choose(cpu, kept, graphs=1, besides=2 * free) is Activations.RECOMPUTE


def test_a_step_over_another_count_is_refused() -> None:
    with pytest.raises(CountError):
        loaded(small_spec()).step(0, 1, 0.1)


def test_a_step_over_nothing_keeps_weights_and_moments() -> None:
    for pipeline in ("sync", "delayed"):
        spec = small_spec(schedule={"pipeline": pipeline})
        engine = loaded(spec)
        before = engine.state()
        out = read(engine.step(0, 0, 0.1))
        assert out.version == engine.newest == 1
        assert_same_bits([engine.state()], [before])


def test_loading_leaves_the_callers_tensors_alone() -> None:
    spec = small_spec()
    state = StageState.initial(spec, 0)
    digest = tensors_digest(state.weights)
    engine = Engine(spec, 0)
    engine.load(state, version=0)
    engine.forward(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor())
    snapshot = engine.state()
    engine.step(0, 1, 0.1)
    assert tensors_digest(state.weights) == tensors_digest(snapshot.weights) == digest
    assert tensors_digest(engine.state().weights) != digest


def test_a_snapshot_replays_the_next_step_to_the_bit() -> None:
    spec = small_spec()
    engine = loaded(spec)
    engine.forward(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor())
    engine.step(0, 1, 0.1)
    replay = Engine(spec, 0)
    replay.load(engine.state(), version=1)
    outputs = []
    mb = Microbatch(0, 1, 0)
    for each in (engine, replay):
        outputs.append(
            (
                read(each.forward(mb, 1, None, tokens(spec, 1))),
                read(each.backward(mb, 1, tensor(0.2))),
                read(each.step(1, 1, 0.1)),
            )
        )
    assert outputs[0] == outputs[1]
    assert_same_bits([replay.state()], [engine.state()])


@pytest.mark.parametrize("wire", list(WireDtype))
def test_a_result_on_the_host_is_the_payload_on_the_device(wire: WireDtype) -> None:
    spec = small_spec(boundary={"wire": wire})
    made = loaded(spec).forward(MB, 0, None, tokens(spec))
    out = read(made)
    assert made.payload is not None
    assert out.payload == bytes(made.payload.tolist())
    assert out.digest == blake3(out.payload).hexdigest()
    assert len(out.payload) == payload_size(spec)
    assert (out.tokens, out.loss) == (spec.data.tokens, None)


def test_a_loss_is_read_with_its_gradient() -> None:
    spec = small_spec()
    made = loaded(spec, 1).loss(MB, 0, tensor(), tokens(spec))
    assert made.loss is not None
    assert read(made).loss == float(made.loss)


def test_stage_0_hashes_its_gradient_summed_over_64_tokens_each_and_sends_nothing() -> None:
    spec = small_spec()
    engine = loaded(spec)
    engine.forward(MB, 0, None, tokens(spec))
    made = engine.backward(MB, 0, tensor())
    assert made.payload is None
    assert read(made).payload is None
    hashed = spec.data.sequences * math.ceil(spec.data.sequence_length / UNSENT_EVERY)
    assert made.hashed_N.numel() == 4 * hashed * spec.model.hidden_size
    assert read(made).digest == blake3(made.hashed_N.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("token", [1, 7])
def test_the_hash_of_stage_0s_gradient_shows_a_lie_at_any_token(token: int) -> None:
    """Only token 0 of these 8 is hashed: by attention its gradient depends on those of all."""
    spec, digests = small_spec(), []
    for change in (0.0, 1e-2):
        gradient = torch.full((2, 8, 8), 0.1)
        gradient[:, token] += change
        engine = loaded(spec)
        engine.forward(MB, 0, None, tokens(spec))
        digests.append(read(engine.backward(MB, 0, encode_wire(gradient, WireDtype.BF16))).digest)
    assert digests[0] != digests[1]


@pytest.mark.parametrize("wire", list(WireDtype))
def test_later_ops_do_not_change_a_result_that_is_not_read_yet(wire: WireDtype) -> None:
    spec = small_spec(boundary={"wire": wire})
    engine, other = loaded(spec), loaded(spec)
    made, early = engine.forward(MB, 0, None, tokens(spec)), read(other.forward(MB, 0, None, tokens(spec)))
    gradient = encode_wire(torch.full((2, 8, 8), 0.1), wire)
    back, early_back = engine.backward(MB, 0, gradient), read(other.backward(MB, 0, gradient))
    later = dataclasses.replace(MB, index=1)
    engine.forward(later, 0, None, tokens(spec, 1))
    engine.backward(later, 0, gradient)
    engine.step(0, 2, 0.1)
    assert (read(made), read(back)) == (early, early_back)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("wire", list(WireDtype))
def test_a_result_read_back_from_a_gpu_is_what_the_gpu_holds(wire: WireDtype) -> None:
    spec = small_spec(boundary={"wire": wire})
    engine = Engine(spec, 1, device="cuda")
    engine.load(StageState.initial(spec, 1), version=0)
    stage_input = encode_wire(torch.full((2, 8, 8), 0.1), wire)
    made = engine.loss(MB, 0, stage_input, tokens(spec))
    assert made.payload is not None
    assert made.payload.is_cuda
    pending = made.read()
    engine.loss(dataclasses.replace(MB, index=1), 0, stage_input, tokens(spec, 1))
    out = pending.result()
    assert made.loss is not None
    assert (out.payload, out.loss) == (bytes(made.payload.tolist()), float(made.loss))


def test_attention_is_causal() -> None:
    spec = small_spec(layout={"cuts": [3]})
    trainer = ReferenceTrainer(spec)
    ids = torch.from_numpy(tokens(spec)[:, :-1])
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 50
    before, after = trainer.logits(ids), trainer.logits(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_stagewise_evaluation_equals_the_whole_models_loss() -> None:
    spec = small_spec()
    trainer = ReferenceTrainer(spec)
    batches = [tokens(spec, seed) for seed in range(2)]
    expected = 0.0
    for batch in batches:
        ids, labels = torch.from_numpy(batch[:, :-1]), torch.from_numpy(batch[:, 1:])
        logits = trainer.logits(ids).flatten(0, 1)
        expected += float(torch.nn.functional.cross_entropy(logits, labels.flatten())) / 2
    assert evaluate_model(spec, trainer.states(), batches) == pytest.approx(expected, rel=1e-6)


def test_training_lowers_the_loss() -> None:
    spec = small_spec(schedule={"steps": 12, "microbatches": 1})
    losses = ReferenceTrainer(spec).run_epoch(0, lambda *_: tokens(spec))
    assert losses[-1][0] < 0.8 * losses[0][0]


def test_the_plain_baseline_gives_a_speed_and_restores_threads() -> None:
    spec = small_spec()
    before = torch.get_num_threads()
    assert train_plain(spec, [tokens(spec)] * 3, threads=1) > 0
    assert torch.get_num_threads() == before
