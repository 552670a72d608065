"""What users do with an exported model works, with the newest and the oldest version of `transformers`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from iota.data import open_tokenizer
from iota.data.exported_tokenizer import write_tokenizer
from iota.model.export import export_model
from iota.reference.pipeline import ReferenceTrainer
from iota.spec import RunSpec
from tests.support.small_runs import small_run
from tests.support.transformers_versions import OLDEST, oldest_transformers

LENGTH = 64
PROGRAM = Path(__file__).parents[1] / "support" / "exported_use.py"
PLAIN = "identity"


@dataclass(frozen=True)
class Used:
    """An export, and what `exported_use` found with one version."""

    spec: RunSpec
    trainer: ReferenceTrainer
    folder: Path
    found: dict[str, Any]

    @property
    def plain(self) -> bool:
        return self.spec.boundary.codec == PLAIN


def export(codec: str, folder: Path) -> tuple[RunSpec, ReferenceTrainer]:
    """A small model with rotary waves of its own, scaled but with resbm, and codecs away from their start."""
    scaling = {"factor": 4.0, "original_positions": 8}
    model = {"vocab_size": 257, "rope_theta": 500.0, "rope_scaling": None if codec == "resbm" else scaling}
    boundary = {"codec": codec, "wire": "fp32" if codec == PLAIN else "bf16"}
    spec = small_run(boundary=boundary, model=model, data={"sequence_length": LENGTH})
    states = ReferenceTrainer(spec).states()
    generator = torch.Generator().manual_seed(1)
    for state in states:
        for weight in state.weights.values():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    definition = open_tokenizer("bytes").definition

    def write_rest(out: Path) -> None:
        write_tokenizer(definition, out, LENGTH)

    export_model(spec, (s.weights for s in states), write_rest, folder, eos_token=256)
    return spec, ReferenceTrainer(spec, states)


@pytest.fixture(
    scope="module",
    params=[(c, v) for c in (PLAIN, "resbm", "resbm-anchor") for v in ("newest", "oldest")],
    ids=str,
)
def used(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Used:
    codec, version = request.param
    work = tmp_path_factory.mktemp("used")
    spec, trainer = export(codec, work / "model")
    older = (
        [str(oldest_transformers(request.config.cache.mkdir("transformers")))] if version == "oldest" else []
    )
    command = [sys.executable, "-I", str(PROGRAM), str(work / "model"), str(work), *older]
    home = {"HOME": str(work), "HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=work, env=home, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads((work / "found.json").read_text())
    expected = transformers.__version__ if version == "newest" else OLDEST[0].partition("==")[2]
    assert found["version"] == expected
    return Used(spec, trainer, work / "model", found)


def test_the_logits_are_those_of_the_pipeline(used: Used) -> None:
    expected = used.trainer.logits(torch.tensor(used.found["ids"])).numpy()
    assert np.abs(np.array(used.found["logits"]) - expected).max() <= 1e-5


def test_a_model_without_codecs_is_a_plain_llama_without_code(used: Used) -> None:
    assert used.found["class_name"] == ("LlamaForCausalLM" if used.plain else "IotaForCausalLM")
    assert any(used.folder.glob("*.py")) is not used.plain
    if used.plain:
        assert used.found["plain_llama"] == 0


def test_padding_on_either_side_changes_no_logit(used: Used) -> None:
    assert used.found["side"] == "left"
    tolerance = 1e-5 if used.plain else 1e-2  # a rounding to the wire may fall to the other side
    assert used.found["left_padding"] <= tolerance
    assert used.found["right_padding"] <= tolerance


def test_a_batch_generates_what_its_prompts_do_alone(used: Used) -> None:
    assert used.found["batch_generation"] is True


def test_the_text_pipeline_takes_batches_and_an_empty_prompt(used: Used) -> None:
    assert used.found["text_pipeline"] == [2, 1]


def test_generation_without_a_prompt_begins_after_an_eos(used: Used) -> None:
    assert used.found["empty_prompt"] == [1, 256, 7]


def test_every_kind_of_cache_generates_the_same(used: Used) -> None:
    assert used.found["caches"] is True


def test_beams_generate(used: Used) -> None:
    assert used.found["beams"] == [2, len(used.found["ids"][0]) + 6]


def test_the_model_works_in_bf16(used: Used) -> None:
    assert 0 < used.found["bf16"] < 0.05


def test_a_saved_model_reloads_with_the_same_logits(used: Used) -> None:
    assert used.found["save_and_reload"] == 0


def test_hidden_states_and_attentions_are_given(used: Used) -> None:
    layers = used.spec.model.layers
    assert used.found["hidden_states"] == [layers + 1, 0, 0]
    assert used.found["attentions"] == layers


def test_embeddings_go_in_with_their_ids_where_the_codec_reads_them(used: Used) -> None:
    assert used.found["embeddings_in"] == [0, True]
    assert ("pass token_ids" in used.found["embeddings_alone"]) is (
        used.spec.boundary.codec == "resbm-anchor"
    )


def test_the_vocabulary_can_be_resized(used: Used) -> None:
    assert used.found["resize"] == [0, 3]


def test_the_base_model_loads_as_auto_model(used: Used) -> None:
    assert used.found["base_model"] == 0


def test_every_weight_learns_with_gradient_checkpointing(used: Used) -> None:
    assert used.found["training_step"] == [True, []]


def test_text_that_spells_a_special_token_is_text(used: Used) -> None:
    assert used.found["special_text"] == list(b"a<|endoftext|>")


def test_the_oldest_version_reads_the_rotary_scaling_that_the_newest_saved(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    _, trainer = export("resbm-anchor", tmp_path / "model")
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "import json, torch, transformers\n"
        "kind = transformers.AutoModelForCausalLM\n"
        "model = kind.from_pretrained(sys.argv[1], trust_remote_code=True).eval()\n"
        "model.save_pretrained(sys.argv[2])\n"
        "with torch.no_grad(): logits = model(torch.arange(40)[None]).logits\n"
        "print(json.dumps(logits.tolist()))\n"
    )
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    oldest = str(oldest_transformers(pytestconfig.cache.mkdir("transformers")))
    for model, saved, *path in (("model", "saved"), ("saved", "again", oldest)):
        command = [sys.executable, "-I", "-c", program, str(tmp_path / model), str(tmp_path / saved), *path]
        done = subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
    expected = trainer.logits(torch.arange(40)[None]).numpy()
    assert np.abs(np.array(json.loads(done.stdout)) - expected).max() <= 1e-5


def test_another_version_is_refused_when_the_model_is_loaded(tmp_path: Path) -> None:
    export("resbm", tmp_path / "model")
    program = (
        "import sys, transformers; transformers.__version__ = sys.argv[2]\n"
        "transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
    )
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", program, str(tmp_path / "model"), "4.56.2"]
    done = subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "pip install 'transformers>=4.57,<6.0'" in done.stderr
