"""Specs from flags, files and proposals: every value can be given, and a wrong name or value is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from iota.cli.main import main
from iota.model.presets import PRESETS
from iota.model.proposal import make_spec
from iota.settings.spec_file import read_draft, read_spec
from iota.settings.spec_template import template
from iota.spec import RopeScaling, RunSpec
from iota.spec.draft import PROPOSED, checked, from_assignments, merged, value_at, values_of
from iota.spec.spec_fields import spec_fields
from iota.swarm.options import SPEC_PATHS, RunOptions, SwarmOptions
from tests.support.data_sets import prepare_made_up

MANIFEST = "0" * 64
OTHER_VALUES = {
    "name": "mine", "precision": "bf16-master", "seed": 7, "model.vocab_size": 300, "model.hidden_size": 512,
    "model.layers": 4, "model.heads": 4, "model.kv_heads": 2, "model.ffn_size": 640, "model.rope_theta": 1e4,
    "model.norm_eps": 1e-6, "model.init_std": 0.01, "model.depth_scaled_init": False,
    "model.rope_scaling.factor": 8.0,
    "model.rope_scaling.low_freq_factor": 2.0, "model.rope_scaling.high_freq_factor": 3.0,
    "model.rope_scaling.original_positions": 4096, "layout.cuts": [2, 1, 1], "layout.replicas": 2,
    "boundary.codec": "resbm-anchor", "boundary.ratio": 8, "boundary.wire": "int8",
    "boundary.hidden_ratio": 2.0, "boundary.anchor_rank": 16, "data.sequence_length": 128,
    "data.sequences": 2, "data.mask_documents": True, "schedule.epochs": 5,
    "schedule.steps": 7, "schedule.microbatches": 10, "schedule.pipeline": "sync", "schedule.credit": 4,
    "schedule.heldout": 6,
    "optimizer.kind": "muon", "optimizer.lr": 2e-3, "optimizer.betas": [0.8, 0.99], "optimizer.eps": 1e-6,
    "optimizer.weight_decay": 0.2, "optimizer.muon_momentum": 0.9, "optimizer.clip": None,
    "optimizer.state": "reset", "optimizer.warmup_steps": 3, "optimizer.decay": "cosine",
    "optimizer.final_lr": 0.2, "optimizer.moments": "int8", "optimizer.gradient_sums": "bf16",
    "outer.eta": 0.6, "outer.momentum": 0.8, "outer.momentum_warmup": 3,
    "outer.part_elements": 4096, "outer.codec": "sparse", "outer.beta": 0.9, "outer.overlap": "one_epoch",
    "audit.ops": 3, "audit.commit_every": 3, "audit.window_steps": 21,
    "audit.tolerance": 0.02, "audit.window": 4, "audit.burn": 0.25, "audit.seal_blocks": 3,
    "audit.line": 5e7, "audit.extra_every": 4,
    "audit.deadline_s": 60.0, "audit.merge_every": 7, "data.first_sequence": 900, "optimizer.first_step": 20,
    "schedule.keep_every": 2,
}  # fmt: skip
"""Another value than the default for every field of a spec."""


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def as_text(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare_made_up(folder)
    return folder


def has_all(spec: RunSpec) -> bool:
    document = json.loads(spec.canonical())
    return all(value_at(document, path) == value for path, value in OTHER_VALUES.items())


def test_every_field_of_a_spec_has_a_line_a_flag_and_an_assignment(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert OTHER_VALUES.keys() == spec_fields().keys()
    flags = [part for path, value in OTHER_VALUES.items() for part in (f"--{path}", as_text(value))]
    code, _, error = run(capsys, "spec", "--data", data, "--out", tmp_path / "a.json", *flags)
    assert (code, error) == (0, "")
    assert has_all(read_spec(tmp_path / "a.json"))
    set_flags = [
        part for path, value in OTHER_VALUES.items() for part in ("--set", f"{path}={as_text(value)}")
    ]
    code, text, _ = run(capsys, "spec", "--template", *set_flags)
    assert code == 0
    (tmp_path / "b.toml").write_text(text)
    code, _, _ = run(
        capsys, "spec", "--data", data, "--out", tmp_path / "b.json", "--spec", tmp_path / "b.toml"
    )
    assert code == 0
    assert read_spec(tmp_path / "b.json").id == read_spec(tmp_path / "a.json").id


def test_a_template_says_each_value_with_its_meaning_and_changes_nothing() -> None:
    options = RunOptions(model="llama-1b")
    text = template(options.draft_spec(), options.draft())
    assert list(values_of(tomllib.loads(text))) == [("model.preset", "llama-1b")]
    shown = {
        path: tomllib.loads(line.removeprefix("#"))
        for path in spec_fields()
        for line in text.splitlines()
        if line.startswith((f"#{path.rpartition('.')[2]} = ", f"{path.rpartition('.')[2]} = "))
    }
    assert shown.keys() == spec_fields().keys()
    lines = text.splitlines()
    at = lines.index("#lr = 0.0003")
    assert lines[at - 1] == "# Learning rate after the warm-up. Default: by the model."
    uncommented = "\n".join(
        line.removeprefix("#") if " = " in line and line[1] != " " else line for line in lines
    )
    spec = make_spec(checked(tomllib.loads(uncommented), "file"), MANIFEST, 2)
    assert spec.id == options.draft_spec().id


def test_a_part_that_is_none_in_one_source_is_given_by_a_later_one_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    factor = "model.rope_scaling.factor"
    plain = RunOptions().draft_spec()
    (tmp_path / "plain.json").write_bytes(plain.canonical())
    scaled = make_spec(
        merged(read_draft(tmp_path / "plain.json"), from_assignments([f"{factor}=8"])), MANIFEST, 2
    )
    assert scaled.model.rope_scaling == RopeScaling(factor=8)
    (tmp_path / "scaled.json").write_bytes(scaled.canonical())
    again = merged(read_draft(tmp_path / "scaled.json"), from_assignments([f"{factor}=none"]))
    assert make_spec(again, MANIFEST, 2).id == plain.id


def test_a_template_turns_off_what_a_file_of_a_shape_has(tmp_path: Path) -> None:
    shape = tmp_path / "shape.json"
    model = PRESETS["tiny"].model_copy(update={"rope_scaling": RopeScaling()})
    shape.write_bytes(model.canonical())
    values = from_assignments(["model.rope_scaling.factor=none"])
    assert RunOptions(model=str(shape)).draft_spec().model.rope_scaling == RopeScaling()
    options = RunOptions(model=str(shape), values=values)
    (tmp_path / "run.toml").write_text(template(options.draft_spec(), options.draft()))
    spec = make_spec(read_draft(tmp_path / "run.toml"), MANIFEST, 2)
    assert spec.model == model.model_copy(update={"rope_scaling": None})


def test_flags_win_over_assignments_and_those_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[schedule]\nepochs = 2\nsteps = 3\nmicrobatches = 4\n")
    values = merged(read_draft(file), from_assignments(["schedule.steps=5", "schedule.microbatches=6"]))
    spec = RunOptions(microbatches=12, values=values).draft_spec()
    assert (spec.schedule.epochs, spec.schedule.steps, spec.schedule.microbatches) == (2, 5, 12)


def test_a_whole_spec_is_a_file_of_values_too(tmp_path: Path) -> None:
    first = SwarmOptions(stages=2, replicas=2).spec(MANIFEST, 257)
    (tmp_path / "spec.json").write_bytes(first.canonical())
    assert make_spec(read_draft(tmp_path / "spec.json"), MANIFEST, 257).id == first.id
    with pytest.raises(ValueError, match=r"data\.manifest is 000.* and the data given is 111"):
        make_spec(read_draft(tmp_path / "spec.json"), "1" * 64, 257)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "optimizer.weight_deacy=0.1"], "did you mean optimizer.weight_decay?"),
        (["--set", "data.eos_id=3"], "--set has data.eos_id, which the command that makes the spec fills in"),
        (["--set", "credit=4"], "--set has credit, which no spec has: did you mean schedule.credit?"),
        (["--set", "optimizer.lr"], "--set 'optimizer.lr' sets nothing"),
        (["--set", "optimizer.lr=fast"], "optimizer.lr: it must be a number, not 'fast'"),
        (["--set", "schedule.steps=2.5"], "schedule.steps cannot be '2.5'"),
        (["--set", "layout.replicas=0"], "layout.replicas cannot be '0'"),
        (["--set", "audit.burn=2"], "audit.burn: it must be at most 1, not '2'"),
        (["--set", "model.kv_heads=3"], "model.heads 8 is not a multiple of model.kv_heads 3"),
        (
            ["--set", "model.rope_scaling.factor=0.5"],
            "model.rope_scaling.factor: it must be at least 1, not '0.5'",
        ),
        (
            ["--set", "model.rope_scaling.low_freq_factor=2"],
            "model.rope_scaling.low_freq_factor was given, and model.rope_scaling.factor is none",
        ),
        (
            ["--set", "model.rope_scaling.factor=8", "--model.rope_scaling.low_freq_factor", "4"],
            "model.rope_scaling.high_freq_factor 4 is not above model.rope_scaling.low_freq_factor 4",
        ),
        (
            ["--set", "model.rope_scaling.original_positions=few"],
            "model.rope_scaling.original_positions: it must be a whole number, not 'few'",
        ),
        (["--set", "model.vocab_size=200", "--template"], None),
        (["--set", "layout.cuts=2,3"], "layout.cuts [2, 3] adds up to 5 and model.layers is 6"),
        (
            ["--stages", "4", "--set", "layout.cuts=2,4"],
            "layout.stages 4 and layout.cuts, which has 2 stages",
        ),
        (["--precision", "tf32"], "precision: it must be 'fp32', 'bf16-master' or 'bf16-sr', not 'tf32'"),
        (["--spec", "absent.toml"], "the spec absent.toml cannot be read"),
        (["--spec", "broken.toml"], "the spec broken.toml is not TOML"),
        (
            ["--spec", "typo.toml"],
            "typo.toml has optimiser.lr, which no spec has: did you mean optimizer.lr?",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_name_or_value_is_refused_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("[optimizer\n")
    Path("typo.toml").write_text("[optimiser]\nlr = 1e-3\n")
    code, _, error = run(capsys, "spec", "--template", *arguments)
    if sentence is None:
        assert code == 0
        return
    assert (code, error.count("\n")) == (2, 1)
    assert sentence in error


def test_up_takes_the_file_and_the_assignments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text("[optimizer]\nlr = 1e-3\n")
    code, _, error = run(capsys, "up", "--spec", "run.toml", "--set", "optimizer.warmup_steps=60")
    assert code == 2
    assert "optimizer.warmup_steps 60 is not less than schedule.epochs x schedule.steps = 60" in error
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_the_orchestrator_says_what_makes_its_spec_of_a_draft(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.toml is a draft: `iota spec --spec .*run\.toml"):
        read_spec(tmp_path / "run.toml")


def test_what_is_said_to_be_proposed_is_and_nothing_else() -> None:
    """Help and templates name the RunSpec's own default for every other value."""
    spec = json.loads(make_spec({"model": {"preset": "orion-100b"}}, MANIFEST, 2).canonical())
    fields = spec_fields()
    differing = {path for path, field in fields.items() if value_at(spec, path) != _plain(field.default)}
    assert differing - PROPOSED.keys() <= {path for path in fields if path.startswith("model.")}
    assert set(SPEC_PATHS.values()) - fields.keys() == {"model.preset", "layout.stages"}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
