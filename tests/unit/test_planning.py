"""What a spec needs of a machine is computed once, and refused before anything starts if it is not there."""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor

import miner.cli
from iota.cli.main import main
from iota.compute import Microbatch
from iota.compute.devices import resolve_device
from iota.compute.engine import Engine
from iota.compute.state import StageState, state_bytes
from iota.console.command import run_command
from iota.data.passes import check_passes
from iota.model.proposal import make_spec
from iota.objects.sizes import max_plan_bytes, planned_frames
from iota.planning import (
    Machine,
    all_needs,
    check_snapshot_bound,
    shortfalls,
    stage_needs,
    stageless,
)
from iota.planning.fits import PROCESS_BYTES
from iota.settings import Activations
from iota.spec import Precision, RunSpec
from iota.spec.draft import from_assignments
from orchestrator.run import orchestrate
from tests.support.data_sets import prepare_made_up
from tests.support.small_engines import tensor, tokens
from tests.support.small_spec import small_spec

SPEC = make_spec({}, "0" * 64, 257)
ROOMY = Machine(memory=1 << 40, disk=1 << 40, place=Path("/data"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command leaves on stderr, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    return said.err


# ---- what is needed ------------------------------------------------------------------------------


def one_sum(spec: RunSpec, held: Engine) -> dict[str, Tensor]:
    """The sum of gradients after a microbatch."""
    mb = Microbatch(0, 0, 0)
    if held.stage == spec.last_stage:
        held.loss(mb, 0, tensor(), tokens(spec))
    else:
        held.forward(mb, 0, None, tokens(spec))
        held.backward(mb, 0, tensor())
    return held._steps[0].sums


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize(("moments", "sums"), [("fp32", "fp32"), ("bf16", "bf16"), ("int8", "bf16")])
@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
def test_the_state_is_what_an_engine_holds(
    kind: str, pipeline: str, moments: str, sums: str, precision: Precision
) -> None:
    optimizer = {"lr": 1e-3, "kind": kind, "moments": moments, "gradient_sums": sums}
    spec = small_spec(optimizer=optimizer, schedule={"pipeline": pipeline}, precision=precision)
    versions = 1 if pipeline == "sync" else 2
    for stage in range(2):
        needs, held = stage_needs(spec, stage), Engine(spec, stage)
        held.load(StageState.initial(spec, stage), version=0)
        assert needs.moments == sum(t.nbytes for t in held.state().moments.values())
        assert held._versions is not None
        used = held._versions.weights.values(), held._versions.operands(0).values()
        storages = {t.data_ptr(): t.nbytes for t in chain(*used)}
        assert needs.weights == versions * sum(storages.values())
        assert needs.gradients == versions * sum(t.nbytes for t in one_sum(spec, held).values())
        kept = 2 * spec.commitments * len(state_bytes(held.state()))
        assert kept <= needs.snapshots


def test_the_last_stage_keeps_one_graph_without_its_logits_and_others_as_many_as_their_credit() -> None:
    first, _, last = all_needs(SPEC)
    assert (first.graphs, last.graphs) == (SPEC.schedule.credit, 1)
    wide = make_spec(
        from_assignments(["model.preset=small", "model.vocab_size=32000", "layout.cuts=2,2,2"]), "0" * 64, 257
    )
    keep, recompute = first.kept[Activations.KEEP], first.kept[Activations.RECOMPUTE]
    larger = stage_needs(wide, 2).kept[Activations.KEEP]
    mine = last.kept[Activations.KEEP]
    # Logits are of a chunk; the gradient of the head is there whole.
    assert larger.graph - mine.graph == 4 * (32000 - 257) * SPEC.model.hidden_size
    assert larger.working < 4 * SPEC.data.tokens * 32000 * 8
    assert first.memory - keep.working == first.memory_recomputing - recompute.working + first.graphs * (
        keep.graph - recompute.graph
    )


def test_more_credit_replicas_steps_and_momentum_need_what_they_keep() -> None:
    def needs(*changes: str) -> int:
        return stage_needs(make_spec(from_assignments(changes), "0" * 64, 257), 1).disk

    assert needs("schedule.steps=40") > 1.6 * (needs() - (1 << 30)) + (1 << 30)
    assert needs("audit.commit_every=1") > needs("audit.commit_every=10")
    assert needs("outer.momentum=0.9", "outer.eta=0.7") > needs()
    one, eight = (needs("layout.replicas=1"), needs("layout.replicas=8", "outer.eta=1"))
    assert eight < one, "a replica of eight sends an eighth of the frames"


def test_a_bound_of_snapshots_below_two_epochs_is_refused() -> None:
    needs = [stage_needs(SPEC, 1)]
    check_snapshot_bound(needs, None)
    check_snapshot_bound(needs, needs[0].snapshots)
    with pytest.raises(
        ValueError, match=r"need 0\.\d\d GiB at stage 1, and --snapshot-bytes is 100MiB: give \d+MiB"
    ):
        check_snapshot_bound(needs, 100 << 20)


def test_a_bound_of_snapshots_that_does_for_one_stage_is_taken() -> None:
    every = all_needs(SPEC)
    sizes = sorted(needs.snapshots for needs in every)
    assert sizes[0] < sizes[-1]
    check_snapshot_bound(every, sizes[0])
    with pytest.raises(ValueError, match="--snapshot-bytes"):
        check_snapshot_bound(every, sizes[0] - 1)


# ---- whether it is there -------------------------------------------------------------------------


def test_nothing_is_missing_on_a_large_machine() -> None:
    assert shortfalls(all_needs(SPEC), ROOMY) == []
    assert stageless(SPEC, ROOMY) == []


def test_each_thing_that_is_too_little_has_its_sentence() -> None:
    small = Machine(memory=1 << 20, disk=1 << 20, place=Path("/data"), card=1 << 20)
    found = shortfalls(all_needs(SPEC), small)
    assert [re.search(r"GB of ([a-z' ]+), and", text)[1] for text in found] == [  # type: ignore[index]
        "the accelerator's memory", "memory", "disk",
    ]  # fmt: skip
    assert all(text.startswith("the 3 nodes on this machine need") for text in found)
    assert shortfalls([stage_needs(SPEC, 1)], small)[0].startswith("stage 1 needs")


def test_all_nodes_of_a_machine_count_together() -> None:
    """Each fits alone."""
    needs = all_needs(SPEC)
    alone = replace(ROOMY, memory=max(n.memory_recomputing + n.hosted for n in needs) + PROCESS_BYTES)
    assert [shortfalls([n], alone) for n in needs] == [[], [], []]
    assert shortfalls(needs, alone)


def test_a_card_with_enough_host_memory_beside_it_has_room_that_it_has_not_alone() -> None:
    needs = stage_needs(make_spec(from_assignments(["model.preset=orion-100b"]), "0" * 64, 2), 1)
    offload, recompute = (needs.memory_of(policy) for policy in (Activations.OFFLOAD, Activations.RECOMPUTE))
    assert offload < recompute
    hosted = PROCESS_BYTES + needs.hosted
    moved = needs.graphs * needs.kept[Activations.OFFLOAD].host
    assert shortfalls([needs], replace(ROOMY, card=offload, memory=hosted + moved)) == []
    assert shortfalls([needs], replace(ROOMY, card=recompute, memory=hosted)) == []
    assert shortfalls([needs], replace(ROOMY, card=offload, memory=hosted))


def test_a_machine_for_one_stage_is_not_stageless() -> None:
    spec = make_spec(from_assignments(["model.preset=llama-1b"]), "0" * 64, 2)
    sizes = sorted(n.memory_recomputing + n.hosted + PROCESS_BYTES for n in all_needs(spec))
    assert stageless(spec, replace(ROOMY, memory=sizes[0])) == []
    assert "of memory" in stageless(spec, replace(ROOMY, memory=sizes[0] - 1))[0]


# ---- before anything starts ----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--threads", "1000"], f"this machine has {os.cpu_count()} cores"),
        (["--device", "xpu9"], "there is no device 'xpu9': give auto, cpu, cuda, cuda:1 or mps"),
        (["--device", "meta"], "nodes do not compute on 'meta'"),
        (["--model", "orion-100b"], "the 49 nodes on this machine need"),
        (["--set", "schedule.steps=100000"], "of disk, and for"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_up_refuses_what_this_machine_does_not_have_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert sentence in refused(capsys, "up", *flags)
    assert list(folder.iterdir()) == []


def test_up_refuses_them_for_a_run_that_is_resumed_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "options.json").write_text("{}")
    assert "threads a core slow it down" in refused(capsys, "up", "--run-dir", "run", "--threads", "1000")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_cuda_device_that_is_not_there_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    assert f"--device {device}: this machine has no cuda device" in refused(capsys, "up", "--device", device)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--threads", "1000"], "threads a core slow it down"),
        (["--device", "xpu9"], "there is no device 'xpu9'"),
    ],
)
def test_a_miner_refuses_them_before_it_asks_anybody(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        held.setblocking(False)
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(SystemExit) as ended:
            run_command(
                miner.cli.app, ["start", "--orchestrator", url, "--data-dir", str(folder / "m"), *flags]
            )
        with pytest.raises(BlockingIOError):
            held.accept()
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert sentence in said
    assert list(folder.iterdir()) == []


def test_cuda_with_a_torch_that_has_none_is_refused_with_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for version, advice in (
        (None, "`IOTA_TORCH=cuda ./scripts/up --help`"),
        ("13.0", "give auto or cpu with --device"),
    ):
        monkeypatch.setattr(torch.version, "cuda", version)
        with pytest.raises(ValueError, match=re.escape(advice)):
            resolve_device("cuda")


def test_devices_that_are_there_are_taken() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda")


# ---- passes over the data ------------------------------------------------------------------------


def test_passes_are_said_and_refused_beyond_the_bound(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path, count=400, heldout_tokens=5000)
    spec = make_spec(from_assignments(["data.sequence_length=64"]), manifest.content_digest(), 257)
    said = check_passes(spec, manifest, 8)
    assert f"{spec.tokens:,} tokens are" in said
    with pytest.raises(
        ValueError, match=r"passes over .* at most 0\.5 are allowed: .* give --max-passes \d+$"
    ):
        check_passes(spec, manifest, 0.5)
    long = make_spec(from_assignments(["data.sequence_length=100000"]), manifest.content_digest(), 257)
    with pytest.raises(ValueError, match=r"data\.sequence_length 100000 is longer than every training shard"):
        check_passes(long, manifest, 1e9)


def test_a_spec_of_thousands_of_passes_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_made_up(tmp_path / "data", count=400, heldout_tokens=5000)
    flags = ("spec", "--data", tmp_path / "data", "--out", tmp_path / "s.json", "--epochs", 5000)
    assert "at most 8 are allowed" in refused(capsys, *flags)
    assert not (tmp_path / "s.json").exists()
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in (*flags, "--max-passes", 1e6)])
    assert ended.value.code == 0
    assert "passes over the" in capsys.readouterr().out


async def test_an_orchestrator_refuses_them_before_it_starts(tmp_path: Path) -> None:
    from iota.settings import OrchestratorSettings

    manifest = prepare_made_up(tmp_path, count=400, heldout_tokens=5000)
    spec = make_spec(from_assignments(["schedule.epochs=5000"]), manifest.content_digest(), 257, 5000)
    (tmp_path / "spec.json").write_bytes(spec.canonical())
    settings = OrchestratorSettings.of(
        spec=tmp_path / "spec.json", journal=tmp_path / "j",
        manifest=tmp_path / "data" / spec.data.manifest / "manifest.json",
    )  # fmt: skip
    with pytest.raises(ValueError, match="at most 8 are allowed"):
        await orchestrate(settings)
    assert not (tmp_path / "j").exists()


def test_a_plan_shows_the_needs_of_a_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.json").write_bytes(SPEC.canonical())
    with pytest.raises(SystemExit):
        main(["plan", "--spec", str(tmp_path / "s.json"), "--json"])
    shown = capsys.readouterr().out
    for needs in all_needs(SPEC, compiled=True):
        assert f'"disk": {needs.disk}' in shown
        assert f'"memory": {needs.memory}' in shown


# ---- held-out text -------------------------------------------------------------------------------


def test_more_held_out_microbatches_than_the_data_has_text_for_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_made_up(tmp_path / "data", count=400, heldout_tokens=5000)
    flags = ("spec", "--data", tmp_path / "data", "--out", tmp_path / "s.json", "--max-passes", 1e6)
    said = refused(capsys, *flags, "--set", "schedule.heldout=6")
    assert "holds out 19 sequences of 256 tokens, and schedule.heldout 6 needs 24: lower it" in said
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in flags])
    assert ended.value.code == 0
    assert json.loads((tmp_path / "s.json").read_text())["schedule"]["heldout"] == 4


def test_the_plan_says_what_the_held_out_loss_costs(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, sentence in (
        ((), "measured on 12 held-out microbatches of 1,024 tokens: 2.4% of the compute."),
        (("--set", "schedule.heldout=0"), "No epoch's base is measured on held-out text"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["plan", "--model", "small", *flags])
        assert ended.value.code == 0
        assert sentence in " ".join(capsys.readouterr().out.split())


def test_frames_receipts_and_plans_of_held_out_microbatches_have_room() -> None:
    without = make_spec(from_assignments(["schedule.heldout=0"]), "0" * 64, 257)
    for stage in range(3):
        more, less = stage_needs(SPEC, stage), stage_needs(without, stage)
        assert (more.frames > less.frames, more.receipts > less.receipts) == (True, True)
    assert planned_frames(SPEC) == planned_frames(without) + 2 * SPEC.schedule.heldout
    assert max_plan_bytes(SPEC) > max_plan_bytes(without)
