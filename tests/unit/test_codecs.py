"""Boundary codecs: the table of them, and one that a test adds without touching a file of the core."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from iota.codec import codec_names, open_codec, register_codec, registry
from iota.codec.boundary_codec import BoundaryCodec, CodecParameter, Side
from iota.codec.shapes import boundary_parameters, boundary_width, payload_shape, payload_size
from iota.compute.evaluate import evaluate_model
from iota.data.samples import needs_tokens
from iota.model.export import export_model
from iota.model.initial import initial_weights
from iota.model.layout import run_shapes, stage_flops
from iota.reference.pipeline import ReferenceTrainer
from iota.spec import BoundarySpec, ModelSpec, RunSpec
from iota.swarm.options import SwarmOptions
from tests.support.small_runs import EnginePipeline, assert_same_bits, sample, small_run


class Half(BoundaryCodec):
    """Every second channel, scaled by one learned number a channel, and a bias looked up by token."""

    name = "half"
    needs_tokens = True

    def width(self, model: ModelSpec, boundary: BoundarySpec) -> int:
        return model.hidden_size // 2

    def parameters(
        self, side: Side, model: ModelSpec, boundary: BoundarySpec
    ) -> Mapping[str, CodecParameter]:
        k = self.width(model, boundary)
        scale = {"scale": CodecParameter((k,), std=0.5)}
        bias = {"by_token.bias": CodecParameter((model.vocab_size, k), multiplied=False)}
        return scale if side is Side.ENCODE else scale | bias

    def saved_values(self, side: Side, model: ModelSpec, boundary: BoundarySpec) -> int:
        return self.width(model, boundary)

    @staticmethod
    def encode(weights: Mapping[str, Tensor], x_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        return x_BTD[..., ::2] * weights["scale"]

    @staticmethod
    def decode(weights: Mapping[str, Tensor], z_BTK: Tensor, ids_BT: Tensor) -> Tensor:
        return (z_BTK * weights["scale"] + weights["by_token.bias"][ids_BT]).repeat_interleave(2, -1)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A run with the codec of this file."""
    monkeypatch.setattr(registry, "_CODECS", dict(registry._CODECS))
    register_codec(Half())
    return small_run(boundary={"codec": "half"})


def test_an_added_codec_has_its_shapes_sizes_and_token_needs(half: RunSpec) -> None:
    assert boundary_width(half) == 16
    assert payload_shape(half) == (2, 12, 16)
    assert payload_size(half) == 2 * 12 * 16 * 2
    assert needs_tokens(half, 1)
    assert run_shapes(half, 1)["boundary.0.decode.by_token.bias"] == (61, 16)
    plain = stage_flops(half.model, half.layout.cuts, 1, 12)
    assert stage_flops(half.model, half.layout.cuts, 1, 12, half.boundary) == plain + 6 * (16 + 16)


def test_an_added_codec_says_how_its_parameters_start(half: RunSpec) -> None:
    weights = initial_weights(half, 1)
    assert not weights["boundary.0.decode.by_token.bias"].any()
    assert 0.2 < float(weights["boundary.1.encode.scale"].std()) < 1


@pytest.mark.usefixtures("one_thread")
def test_an_added_codec_trains_through_the_pipeline_as_in_one_process(half: RunSpec) -> None:
    pipeline, reference = EnginePipeline(half), ReferenceTrainer(half)
    pipeline.run_steps(0)
    reference.run_steps(0, sample(half))
    assert_same_bits(pipeline.states(), reference.states())
    start = initial_weights(half, 1)
    trained = pipeline.states()[1].weights
    assert all(not torch.equal(start[n], trained[n]) for n in start if n.startswith("boundary."))
    assert evaluate_model(half, pipeline.states(), [sample(half)(0, 0, 0)]) > 0


def test_an_export_carries_an_added_codec_with_it(half: RunSpec, tmp_path: Path) -> None:
    trainer = ReferenceTrainer(half)
    trainer.run_steps(0, sample(half))
    out = tmp_path / "model"
    export_model(half, (state.weights for state in trainer.states()), lambda _: None, out, eos_token=0)
    ids = torch.randint(0, half.model.vocab_size, (2, 9), generator=torch.Generator().manual_seed(1))
    program = (
        "import json, sys; sys.modules['iota'] = None\n"
        "import torch; from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "with torch.no_grad(): logits = model(torch.tensor(json.loads(sys.argv[2]))).logits\n"
        "print(json.dumps(logits.tolist()))\n"
    )
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", program, str(out), json.dumps(ids.tolist())]
    done = subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True, check=True)
    found = np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)
    assert np.abs(found - trainer.logits(ids).numpy()).max() <= 1e-5


def test_a_name_is_given_once(half: RunSpec) -> None:
    with pytest.raises(ValueError, match="already"):
        register_codec(Half())


def test_an_unknown_codec_is_refused_with_the_known_ones() -> None:
    assert codec_names() == ["identity", "resbm", "resbm-anchor"]
    with pytest.raises(ValueError, match="this build has identity, resbm, resbm-anchor"):
        open_codec("half")
    with pytest.raises(ValueError, match="no codec is called 'half'"):
        SwarmOptions.of(boundary="half").spec("0" * 64, 61)


def test_a_ratio_that_does_not_divide_the_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ratio 5 does not divide the width 256: choose one of \[2, 4, "):
        SwarmOptions.of(ratio=5).spec("0" * 64, 61)


def test_a_stage_owns_what_it_decodes_and_what_it_encodes() -> None:
    spec = small_run()
    names = [boundary_parameters(spec.model, spec.boundary, stage, 3) for stage in range(3)]
    owned = [{".".join(name.split(".")[:3]) for name in stage} for stage in names]
    assert owned == [
        {"boundary.0.encode"},
        {"boundary.0.decode", "boundary.1.encode"},
        {"boundary.1.decode"},
    ]


@pytest.mark.parametrize("name", ["resbm", "resbm-anchor"])
def test_a_new_boundary_is_the_projection_onto_its_first_channels(name: str) -> None:
    spec = small_run(boundary={"codec": name})
    codec, ids = open_codec(name), torch.zeros(2, 3, dtype=torch.long)
    sides = [
        {n.split(f".{side}.")[1]: w for n, w in initial_weights(spec, stage).items() if f".{side}." in n}
        for stage, side in ((0, Side.ENCODE), (1, Side.DECODE))
    ]
    x = torch.randn(2, 3, spec.model.hidden_size)
    z = codec.encode(sides[0], x, ids)
    assert torch.equal(z, x[..., :8])
    assert torch.equal(codec.decode(sides[1], z, ids), torch.cat([z, torch.zeros(2, 3, 24)], -1))
