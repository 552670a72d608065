"""Existing weights as a start: what no run can train is refused by name, and bytes must be the spec's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from iota.cli.main import main
from iota.exporting import Exporter, FolderObjects, RecordedFacts, Target
from iota.model.pretrained import find_pretrained
from iota.model.proposal import make_spec
from iota.outer.start import pinned, store_start
from iota.protocol.events import LoadBase
from iota.protocol.frames import StoredObject
from iota.protocol.messages import Ready
from iota.protocol.records import BaseRecord
from iota.settings.spec_file import read_spec
from iota.simulate.names import fake_hotkey
from iota.spec import RopeScaling, RunSpec
from iota.spec.draft import from_assignments, merged
from iota.store import ObjectMissing
from orchestrator.coordinator import Coordinator
from orchestrator.journal import SqliteJournal, read_journal
from orchestrator.run import _start
from tests.support.coordinators import LIMITS, Driven
from tests.support.data_sets import prepare_made_up
from tests.support.llamas import change_config, save_llama
from tests.support.sample_specs import started_spec

LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""As in the `config.json` of Llama 3.2."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder)
    return folder


@pytest.fixture
def llama(tmp_path: Path, saved: Path) -> Path:
    """A Llama's folder that the test may change."""
    folder = tmp_path / "llama"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((saved / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral', and only llama is read"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}},
            "rope scaling (llama3) without high_freq_factor",
        ),
        (
            {"rope_parameters": LLAMA_3 | {"low_freq_factor": 4.0}},
            "rope scaling (llama3) that cannot be: model.rope_scaling.high_freq_factor 4 is not above",
        ),
        (
            {"rope_parameters": LLAMA_3 | {"partial_rotary_factor": 0.5}},
            "partial_rotary_factor, which is not supported",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}},
            "rope scaling (yarn), which is not supported",
        ),
        ({"rope_parameters": [1]}, "rope scaling ([1]), which is not supported"),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope scaling (linear)",
        ),
        ({"attention_bias": True}, "attention_bias, which is not supported"),
        ({"mlp_bias": True}, "mlp_bias, which is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu', and only silu is read"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: give weights that are not quantized"),
        ({"head_dim": 32}, "head_dim 32, which is not hidden_size / num_attention_heads"),
        ({"hidden_size": None}, "does not say 'hidden_size'"),
        ({"num_hidden_layers": -1}, "is no Llama's: layers"),
        ({"num_hidden_layers": 10**9}, "is no Llama's: layers: it must be at most"),
        ({"max_position_embeddings": [1]}, "has max_position_embeddings [1]"),
        ({"vocab_size": 300}, "F32 [257, 64], and config.json needs [300, 64]"),
        ({"num_hidden_layers": 4}, "holds no 'model.layers.3."),
        (
            {"num_hidden_layers": 2},
            "holds model.layers.2.input_layernorm.weight, which a plain Llama does not",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_model_that_a_run_cannot_train_is_refused_by_name(
    llama: Path, change: dict[str, Any], sentence: str
) -> None:
    change_config(llama, **change)
    with pytest.raises(ValueError, match=r".") as error:
        find_pretrained(str(llama))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "there",
    [
        {"rope_parameters": LLAMA_3 | {"rope_theta": 3e5}},
        {"rope_parameters": None, "rope_scaling": LLAMA_3, "rope_theta": 3e5},  # before version 5
    ],
    ids=["rope_parameters", "rope_scaling"],
)
def test_the_rotary_scaling_of_llama_3_comes_with_the_weights(llama: Path, there: dict[str, Any]) -> None:
    change_config(llama, **there)
    weights = find_pretrained(str(llama))
    assert (weights.model.rope_theta, weights.model.rope_scaling) == (3e5, RopeScaling())
    assert make_spec(weights.draft({}), "0" * 64, 257).model == weights.model
    same = from_assignments(["model.rope_scaling.factor=32.0"])
    assert make_spec(merged(same, weights.draft(same)), "0" * 64, 257).model == weights.model
    for other in ("factor=8", "factor=none", "low_freq_factor=2"):
        with pytest.raises(
            ValueError, match=rf"model\.rope_scaling\.{other.replace('=', ' is ')}, and the w"
        ):
            weights.draft(from_assignments([f"model.rope_scaling.{other}"]))


def test_damaged_files_are_refused_with_what_to_do(llama: Path) -> None:
    whole = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read .*: fetch the weights again"):
        find_pretrained(str(llama))
    (llama / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON: fetch the weights again"):
        find_pretrained(str(llama))


def test_an_index_names_no_file_outside_its_folder(llama: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "../other/model.safetensors"}}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"'\.\./other/model\.safetensors', which is no file of that folder"):
        find_pretrained(str(llama))


def test_eight_bit_weights_are_refused(llama: Path) -> None:
    tensors = safetensors.torch.load_file(llama / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)
    safetensors.torch.save_file(tensors, llama / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.norm\.weight .* is F8_E4M3 .* in F32, BF16, F16"):
        find_pretrained(str(llama))


def test_a_name_that_is_neither_folder_nor_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--init absent: there is no such folder"):
        find_pretrained("absent")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_the_command_writes_spec_and_parts_and_repeats_itself(
    tmp_path: Path, llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    prepare_made_up(data)
    flags = ("--data", data, "--init", llama, "--stages", 2, "--sequence-length", 64)
    code, text, _ = run(capsys, "spec", "--out", tmp_path / "a.json", *flags)
    assert code == 0
    assert "resbm-anchor boundaries begin untrained" in text
    spec = read_spec(tmp_path / "a.json")
    assert spec.init is not None
    assert (spec.init.source, spec.model.layers) == ("llama", 3)
    parts = {path: path.stat().st_mtime_ns for path in (data / spec.id).rglob("*.*")}
    one = next(path for path in parts if path.suffix == ".safetensors")
    before = one.read_bytes()
    one.unlink()
    assert run(capsys, "spec", "--out", tmp_path / "b.json", *flags)[0] == 0
    assert read_spec(tmp_path / "b.json").id == spec.id
    assert one.read_bytes() == before
    assert all(path.stat().st_mtime_ns == time for path, time in parts.items() if path != one)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model", "tiny"], "model.preset is tiny, and the weights of --init fix the model: leave it out"),
        (["--set", "model.layers=4"], "model.layers is 4, and the weights of --init fix the model"),
        (["--sequence-length", "256"], "256 is longer than the weights' max_position_embeddings 128"),
        (["--stages", "4", "--sequence-length", "64"], "give at most 3 stages"),
    ],
)
def test_values_that_contradict_the_weights_are_refused(
    llama: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    code, _, error = run(capsys, "spec", "--template", "--init", llama, *flags)
    assert code == 2
    assert sentence in error


def test_the_proposed_sequences_are_no_longer_than_the_weights_allow(
    llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, _ = run(capsys, "spec", "--template", "--init", llama)
    assert (code, "\nsequence_length = 128\n" in text) == (0, True)


def test_a_weight_that_is_not_finite_is_refused(llama: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(llama / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    safetensors.torch.save_file(tensors, llama / "model.safetensors")
    weights = find_pretrained(str(llama))
    spec = started_spec().model_dump() | {"init": None, "model": weights.model}
    with pytest.raises(ValueError, match=r"model\.norm\.weight .* holds NaN or infinity"):
        pinned(RunSpec.model_validate(spec | {"boundary": {"codec": "identity"}}), weights)


# ---- the orchestrator ----------------------------------------------------------------------------


def records(spec: RunSpec) -> list[BaseRecord]:
    assert spec.init is not None
    part = StoredObject(key="some/part", digest="ef" * 32, size=9)
    return [
        BaseRecord(epoch=0, stage=stage, digest=digest, parts=(part,))
        for stage, digest in enumerate(spec.init.digests)
    ]


def test_a_joiner_is_sent_to_the_stored_weights_and_other_bytes_do_not_get_in() -> None:
    spec = started_spec()
    driven = Driven(Coordinator(spec, LIMITS, records(spec)))
    first, other, right, last = (driven.join(number) for number in range(4))
    load = driven.state.members[first.hotkey].events.after(0)[0][1]
    assert isinstance(load, LoadBase)
    assert (load.digest, load.parts) == (spec.init and spec.init.digests[0], records(spec)[0].parts)
    # Two equal claims would decide, if the spec did not.
    stage_0 = [m for m in (first, other, right, last) if m.stage == 0]
    for member in stage_0:
        driven.say(member, reports=[Ready(epoch=0, digest="00" * 32)])
    assert [m.ready_epoch for m in stage_0] == [-1, -1]
    driven.say(stage_0[0], reports=[Ready(epoch=0, digest=records(spec)[0].digest)])
    assert stage_0[0].ready_epoch == 0
    assert [e.kind for _, e in stage_0[0].events.after(0) if e.kind == "base_assign"] == []


def test_an_orchestrator_without_the_weights_that_the_spec_pins_does_not_start() -> None:
    spec = started_spec()
    for start in ([], records(spec)[:1], [r.model_copy(update={"digest": "00" * 32}) for r in records(spec)]):
        with pytest.raises(ValueError, match=r"is not the one whose digests the spec has in init\.digests"):
            Coordinator(spec, start=start)


def test_the_journal_of_a_run_from_existing_weights_is_read_alone(tmp_path: Path) -> None:
    spec = started_spec()
    journal = SqliteJournal(tmp_path / "j", spec, fake_hotkey(0))
    for _ in range(2):  # each start keeps it
        journal.keep_start(records(spec))
    journal.close()
    found = read_journal(tmp_path / "j")
    assert [found.stored_base(0, stage) for stage in range(spec.layout.stages)] == records(spec)


def test_the_weights_that_a_run_began_with_are_not_made_from_its_seed(tmp_path: Path) -> None:
    spec = started_spec()
    later = {(1, base.stage): base.model_copy(update={"epoch": 1}) for base in records(spec)}
    facts, target = RecordedFacts(spec, later, {}), Target(tmp_path / "model", 0)
    with (
        asyncio.Runner() as runner,
        pytest.raises(ValueError, match="base of epoch 0 is not stored; there are: 1"),
    ):
        Exporter(facts, FolderObjects(tmp_path), target, runner, lambda *_: None).run()


async def test_a_store_without_the_weights_is_said_with_the_command_that_puts_them_there() -> None:
    class Empty:
        async def get(self, key: str) -> bytes:
            raise ObjectMissing(key)

    store: Any = Empty()
    with pytest.raises(ValueError, match=r"no start weights of run .* \(acme/llama@0f\).*iota spec --init"):
        await _start(started_spec(), store)


def test_store_start_stores_the_records_last(llama: Path) -> None:
    """So that what has records has all of its parts."""
    weights = find_pretrained(str(llama))
    spec = started_spec().model_dump() | {"init": None, "model": weights.model}
    made = pinned(RunSpec.model_validate(spec | {"boundary": {"codec": "identity"}}), weights)
    keys: list[str] = []
    store_start(made, weights, lambda key, data: keys.append(key))
    assert keys[-1] == f"{made.id}/start.json"
    assert len(set(keys)) == len(keys) > 2


@pytest.mark.parametrize("content", [b"[" * 1_000_000, b'"\xff"', b'{"vocab_size": 9' + b"9" * 5000 + b"}"])
def test_a_configuration_that_python_cannot_parse_is_refused(llama: Path, content: bytes) -> None:
    (llama / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is not JSON: fetch the weights again"):
        find_pretrained(str(llama))


def test_a_configuration_without_an_end_is_refused_in_bounded_memory(llama: Path) -> None:
    (llama / "config.json").unlink()
    (llama / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"config\.json is larger than such a file can be"):
        find_pretrained(str(llama))
