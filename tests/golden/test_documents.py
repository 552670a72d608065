"""Masked documents: each is computed as if it were alone, whatever the pipeline, precision or policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from iota.codec.wire_dtype import encode_wire
from iota.compute.evaluate import Evaluation
from iota.compute.stage_pass import StagePass
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.model.graph_sizes import POLICIES
from iota.reference.pipeline import ReferenceTrainer
from iota.settings import Activations
from iota.spec import Precision, RunSpec
from tests.support.devices import DEVICES
from tests.support.small_runs import MASKED, EnginePipeline, assert_same_bits, sample, small_run
from tests.support.trained_stages import Trained

EOS: int = MASKED["eos_id"]
EXACT = {"codec": "resbm-anchor", "wire": "fp32"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("codec", ["identity", "resbm-anchor"])
def test_stages_equal_the_model_unsplit(codec: str, precision: Precision, pipeline: str) -> None:
    spec = small_run(
        boundary={"codec": codec}, precision=precision, schedule={"pipeline": pipeline}, data=MASKED
    )
    stages, reference = EnginePipeline(spec), ReferenceTrainer(spec)
    stages.run_steps(0)
    losses = reference.run_steps(0, sample(spec))
    assert_same_bits(stages.states(), reference.states())
    assert {mb: losses[mb.step][mb.index] for mb in stages.losses} == stages.losses
    other = EnginePipeline(spec.model_copy(update={"data": unmasked(spec)}))
    other._batches = sample(spec)
    other.run_steps(0)
    assert other.losses != stages.losses


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES[1:])
@pytest.mark.parametrize("precision", list(Precision))
def test_every_activation_policy_gives_the_bits_of_kept_graphs(
    precision: Precision, policy: Activations, device: str
) -> None:
    spec = small_run(precision=precision, data=MASKED)
    kept, other = (Trained(spec, device, each) for each in (Activations.KEEP, policy))
    assert other.made == kept.made
    assert_same_bits([engine.state() for engine in other.engines], [e.state() for e in kept.engines])


@pytest.mark.parametrize("precision", ["fp32", "bf16-master"])
def test_a_document_has_the_losses_that_it_has_alone(precision: str) -> None:
    """So have a part of one, at the start of a sequence, and an EOS by itself. Positions begin at 0 there."""
    row = [7, 9, 11, EOS, 5, 6, 8, 20, EOS, EOS, 30, 31, 32]
    spec = small_run(precision=precision, boundary=EXACT, data=MASKED | {"sequences": 1})
    together = losses(spec, np.array([row]))
    alone = [
        losses(of_length(spec, stop - start), np.array([row[start : stop + 1]]))
        for start, stop in ((0, 3), (3, 8), (8, 9), (9, 12))
    ]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-5 if precision == "fp32" else 1e-2)
    without = losses(spec.model_copy(update={"data": unmasked(spec)}), np.array([row]))
    np.testing.assert_allclose(without[:3], together[:3], rtol=1e-2)
    assert np.abs(without[4:] - together[4:]).max() > 1e-2


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_crosses_a_border_forward_or_backward(device: str) -> None:
    spec = small_run(boundary=EXACT, data=MASKED | {"sequences": 2})
    stage = StagePass(spec, 1, torch.device(device))
    weights = {name: w.to(device) for name, w in StageState.initial(spec, 1).weights.items()}
    ids = np.full((2, 13), 7)
    ids[0, 5], ids[1, 8] = EOS, EOS
    torch.manual_seed(3)
    received = torch.randn(2, 12, 8)
    changed = received.clone()
    changed[0, :5], changed[1] = 1.0, -1.0  # all but the second document of the first sequence
    passes = [
        stage.graph(weights, stage.inputs(encode_wire(x, spec.boundary.wire), ids))
        for x in (received, changed)
    ]
    assert torch.equal(passes[0].out[0, 5:], passes[1].out[0, 5:])
    assert not torch.equal(passes[0].out[0, :5], passes[1].out[0, :5])
    gradient = torch.zeros_like(passes[0].out)
    gradient[0, 5:] = 1.0
    torch.autograd.backward(passes[0].out, gradient)
    at_entry: Tensor | None = passes[0].entry.grad
    assert at_entry is not None
    assert bool((at_entry[0, :5] == 0).all())
    assert bool((at_entry[1] == 0).all())
    assert bool((at_entry[0, 5:] != 0).any(-1).all())


def unmasked(spec: RunSpec) -> object:
    return spec.data.model_copy(update={"mask_documents": False, "eos_id": None})


def of_length(spec: RunSpec, length: int) -> RunSpec:
    return spec.model_copy(update={"data": spec.data.model_copy(update={"sequence_length": length})})


def losses(spec: RunSpec, tokens: Tokens) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Of each token of one sequence, at random weights of a fair size."""
    evaluation = Evaluation(spec, [tokens])
    generator = torch.Generator().manual_seed(1)
    for stage in range(spec.layout.stages):
        start = StageState.initial(spec, stage).weights
        weights = {n: w + 0.2 * torch.randn(w.shape, generator=generator) for n, w in start.items()}
        for _ in evaluation.stage(stage, StageState(weights)):
            pass
    return evaluation.losses[0].reshape(-1)
