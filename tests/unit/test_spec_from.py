"""`iota spec --from` and `iota run rollback`: a run from a base of another."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from iota.cli.main import main
from iota.objects import start_key
from iota.protocol.records import START_RECORDS
from iota.settings.spec_file import read_spec
from iota.spec import RunSpec
from orchestrator.coordinator import Coordinator
from tests.support.store_servers import SECRET
from tests.support.stored_runs import StoredRun, served, store_run

PLAIN = {"codec": "identity", "ratio": 1, "wire": "fp32"}


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    made = store_run(tmp_path / "run", boundary=PLAIN)
    made.write_journal()
    (tmp_path / "secret").write_bytes(SECRET)
    return made


def called(*arguments: object) -> int:
    """The exit code of `iota`."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


async def calling(*arguments: object) -> int:
    return await asyncio.to_thread(called, *arguments)


def startable(spec: RunSpec, store: Path) -> bool:
    """Whether an orchestrator takes up the run with what is in its store."""
    start = START_RECORDS.validate_json((store / start_key(spec.id)).read_bytes())
    Coordinator(spec, start=start)
    return all((store / part.key).stat().st_size == part.size for record in start for part in record.parts)


async def test_a_spec_comes_from_a_going_run_by_its_url_alone(run: StoredRun, tmp_path: Path) -> None:
    shutil.copytree(run.store, tmp_path / "mine")
    for path in (tmp_path / "mine").iterdir():
        if path.name == run.spec.id:
            shutil.rmtree(path)
    out = tmp_path / "spec.json"
    async with served(run) as (running, _):
        given = ["--data", tmp_path / "mine", "--out", out, "--stages", 3]
        assert await calling("spec", "--from", running.url, *given) == 0
    spec = read_spec(out)
    assert spec.layout.stages == 3
    assert startable(spec, tmp_path / "mine")
    assert spec.init is not None
    assert spec.init.source == f"run {run.spec.id}, epoch 1"
    assert not (tmp_path / ".spec.json.download").exists()


async def test_a_spec_comes_from_a_stopped_runs_journal_and_store(run: StoredRun, tmp_path: Path) -> None:
    out = tmp_path / "spec.json"
    async with served(run) as (_, url):
        source = ["--from", run.root / "journal.db", "--store", url]
        source += ["--store-secret-file", tmp_path / "secret"]
        assert await calling("spec", *source, "--data", run.store, "--out", out, "--epochs", 4) == 0
    assert read_spec(out).schedule.epochs == 4
    assert startable(read_spec(out), run.store)


def test_an_interrupted_command_is_repeated_and_gives_the_same_run(run: StoredRun, tmp_path: Path) -> None:
    given = ["spec", "--from", run.root, "--data", run.store, "--out"]
    assert called(*given, tmp_path / "a.json") == 0
    spec = read_spec(tmp_path / "a.json")
    part = next((run.store / spec.id / "base").rglob("*.safetensors"))
    before = part.read_bytes()
    part.unlink()
    assert called(*given, tmp_path / "b.json") == 0
    assert read_spec(tmp_path / "b.json").id == spec.id
    assert part.read_bytes() == before


def test_the_data_and_the_steps_go_on_and_it_is_said(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("spec", "--from", run.root, "--data", run.store, "--out", tmp_path / "s.json") == 0
    said = capsys.readouterr().out
    assert "the data goes on at place 4 of the order of samples" in said
    assert "with the 128 that earlier runs have read" in said
    spec = read_spec(tmp_path / "s.json")
    assert (spec.data.first_sequence, spec.optimizer.first_step, spec.schedule.epochs) == (4, 1, 1)
    assert (
        called("spec", "--spec", tmp_path / "s.json", "--data", run.store, "--out", tmp_path / "t.json") == 0
    )
    fresh = read_spec(tmp_path / "t.json")
    assert (fresh.data.first_sequence, fresh.optimizer.first_step, fresh.init) == (0, 0, None)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epoch", "7"], "the base of epoch 7 is not stored; there are: 1; a run keeps those"),
        (["--init", "llama"], "--init and --from both say"),
        (["--set", "model.layers=3"], "the base of --from fixes the model"),
        (["--sequence-length", "16"], "which of them were read cannot be told"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    run: StoredRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    sentence: str,
) -> None:
    out = tmp_path / "s.json"
    assert called("spec", "--from", run.root, "--data", run.store, "--out", out, *flags) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()
    assert [p.name for p in run.store.iterdir() if (p / "start.json").exists()] == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epoch", "1"], "--epoch is about the earlier run of --from RUN"),
        (["--store", "http://127.0.0.1:1"], "--store is about the earlier run"),
        (["--from", "absent"], "--from absent: give the folder"),
        (["--from", "."], "there is no run in"),
    ],
)
def test_flags_about_no_earlier_run_are_refused(
    run: StoredRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called("spec", "--data", run.store, "--out", tmp_path / "s.json", *flags) == 2
    assert sentence in capsys.readouterr().err


def test_an_orchestrator_that_does_not_answer_is_named(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iota.swarm.run_sources.RETRY_FOR_S", 0.1)
    given = ["--data", run.store, "--out", tmp_path / "s.json"]
    assert called("spec", "--from", "http://127.0.0.1:1", *given) == 1
    assert "no orchestrator answers at http://127.0.0.1:1" in capsys.readouterr().err


def test_damaged_parts_are_refused(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run.store / run.records[1].parts[0].key
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    out = tmp_path / "s.json"
    assert called("spec", "--from", run.root, "--data", run.store, "--out", out) == 2
    assert "other bytes than were announced" in capsys.readouterr().err
    assert not out.exists()


# ---- rollback ------------------------------------------------------------------------------------


async def test_a_rollback_is_one_command_and_leaves_the_old_run_as_it_is(
    run: StoredRun, tmp_path: Path
) -> None:
    journal, out = run.root / "journal.db", tmp_path / "spec.json"
    before = {path: path.read_bytes() for path in run.store.rglob("*") if path.is_file()}
    entries = journal.read_bytes()
    async with served(run) as (_, url):
        source = ["--journal", journal, "--store", url, "--store-secret-file", tmp_path / "secret"]
        assert await calling("run", "rollback", *source, "--epoch", 1, "--out", out) == 0
    spec = read_spec(out)
    assert startable(spec, run.store)
    assert (spec.schedule.epochs, spec.optimizer.first_step, spec.data.first_sequence) == (1, 1, 4)
    assert {path: path.read_bytes() for path in before} == before
    assert journal.read_bytes()[: len(entries) // 2] == entries[: len(entries) // 2]
    assert not (tmp_path / ".spec.json.download").exists()


async def test_a_rollback_may_skip_what_the_run_has_read(run: StoredRun, tmp_path: Path) -> None:
    out = tmp_path / "spec.json"
    async with served(run) as (_, url):
        source = ["--journal", run.root / "journal.db", "--store", url]
        source += ["--store-secret-file", tmp_path / "secret"]
        given = ["--epoch", 1, "--out", out, "--skip-data"]
        assert await calling("run", "rollback", *source, *given) == 0
    assert read_spec(out).data.first_sequence == 8  # it was in its second epoch


def test_a_rollback_to_a_base_that_is_gone_is_refused(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--journal", run.root / "journal.db", "--store-secret-file", tmp_path / "secret"]
    assert called("run", "rollback", *given, "--epoch", 9, "--out", tmp_path / "s.json") == 2
    assert "schedule.keep_every" in capsys.readouterr().err
    assert called("run", "rollback", "--epoch", 9, "--out", tmp_path / "s.json") == 2
    assert "--journal FILE is needed" in capsys.readouterr().err


def test_a_written_spec_is_json_that_names_its_start(run: StoredRun, tmp_path: Path) -> None:
    assert called("spec", "--from", run.root, "--data", run.store, "--out", tmp_path / "s.json") == 0
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["init"]["source"].startswith("run ")
