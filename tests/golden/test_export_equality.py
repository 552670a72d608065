"""An exported model, in transformers and without this package, equals the pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from iota.model.export import export_model, exported_name
from iota.reference.llama import llama_config
from iota.reference.pipeline import ReferenceTrainer
from iota.spec import RunSpec
from tests.support.small_runs import small_run

SCALED = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0, "original_positions": 8}
"""Rotary scaling that reaches into the few positions of these runs."""

# a child that cannot import the package: isolated (-I), elsewhere, and the name blocked
CHILD = """
import json, sys
sys.modules["iota"] = None
import numpy as np, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
directory, job = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True).eval()
ids = torch.tensor(job["ids"])
with torch.no_grad():
    logits = model(ids).logits
    pad = torch.zeros(ids.shape[0], 3, dtype=torch.long)
    mask = torch.cat([pad, torch.ones_like(ids)], 1)
    padded = model(torch.cat([pad, ids], 1), attention_mask=mask).logits[:, 3:]
greedy = dict(max_new_tokens=5, do_sample=False, pad_token_id=0)
cached = model.generate(ids, **greedy)
uncached = model.generate(ids, use_cache=False, **greedy)
behind_padding = model.generate(torch.cat([pad, ids], 1), attention_mask=mask, **greedy)
np.savez(job["out"], logits=logits, padded=padded, cached=cached, uncached=uncached,
         behind_padding=behind_padding)
"""


def trained(tmp_path: Path, spec: RunSpec) -> tuple[ReferenceTrainer, dict[str, np.ndarray], torch.Tensor]:
    """A model with codecs moved away from their start, and what a child process makes of its export."""
    trainer = ReferenceTrainer(spec)
    generator = torch.Generator().manual_seed(1)
    states = trainer.states()
    for state in states:
        for weight in state.weights.values():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    trainer = ReferenceTrainer(spec, states)
    out = tmp_path / "model"
    export_model(spec, (s.weights for s in states), lambda _: None, out, eos_token=0, shard_bytes=40_000)
    ids = torch.randint(0, spec.model.vocab_size, (2, 9), generator=generator)
    job: dict[str, Any] = {"ids": ids.tolist(), "out": str(tmp_path / "result.npz")}
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-I", "-c", CHILD, str(out), json.dumps(job)],
        cwd=tmp_path,
        env=home,
        check=True,
        timeout=120,
    )
    with np.load(tmp_path / "result.npz") as result:
        return trainer, dict(result), ids


@pytest.mark.parametrize("scaling", [None, SCALED], ids=["", "scaled"])
@pytest.mark.parametrize(("codec", "wire"), [("identity", "fp32"), ("resbm-anchor", "bf16")])
def test_exported_model_gives_the_pipelines_logits_and_generates(
    tmp_path: Path, codec: str, wire: str, scaling: dict[str, float] | None
) -> None:
    spec = small_run(
        boundary={"codec": codec, "wire": wire}, model={"rope_theta": 500.0, "rope_scaling": scaling}
    )
    trainer, result, ids = trained(tmp_path, spec)
    expected = trainer.logits(ids).numpy()
    assert np.abs(result["logits"] - expected).max() <= 1e-5
    assert np.array_equal(result["cached"][:, 9:], result["behind_padding"][:, 12:])
    assert result["cached"].shape == (2, 14)
    assert np.array_equal(result["cached"], result["uncached"])
    assert np.abs(result["padded"] - expected).max() <= (1e-4 if wire == "fp32" else 1e-2)


@pytest.mark.parametrize("scaling", [None, SCALED], ids=["", "scaled"])
def test_a_model_without_codecs_is_transformers_own_llama(scaling: dict[str, float] | None) -> None:
    model = {"rope_theta": 500.0, "rope_scaling": scaling}
    spec = small_run(boundary={"codec": "identity", "wire": "fp32"}, model=model)
    trainer = ReferenceTrainer(spec)
    config = llama_config(spec.model, 64)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 500.0}
    if scaling is not None:
        names = {"original_positions": "original_max_position_embeddings"}
        theirs = {names.get(name, name): value for name, value in scaling.items()}
        config.rope_parameters |= theirs | {"rope_type": "llama3"}
    llama = LlamaForCausalLM(config).eval()
    weights = {exported_name(spec, n): w for state in trainer.states() for n, w in state.weights.items()}
    llama.load_state_dict(weights)
    ids = torch.randint(0, spec.model.vocab_size, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert float((llama(ids).logits - trainer.logits(ids)).abs().max()) <= 1e-6


def test_export_refuses_a_directory_with_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        export_model(small_run(), [], lambda _: None, tmp_path, eos_token=0)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stages given"):
        export_model(small_run(), [], lambda _: None, tmp_path / "model", eos_token=0)
    assert list(tmp_path.iterdir()) == []
