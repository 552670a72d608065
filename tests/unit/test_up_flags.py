"""What `iota up` refuses: one sentence that says what to do, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from iota.cli.main import main
from iota.swarm.options import SwarmOptions
from iota.swarm.run_dir import RunDir, write_json


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("IOTA_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def held_run(folder: Path) -> Iterator[RunDir]:
    with RunDir(folder / "run") as run_dir:
        write_json(run_dir.options_file, asdict(SwarmOptions()))
        yield run_dir


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The one line that the command line leaves on stderr, with exit code `code`."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    said = capsys.readouterr()
    assert ended.value.code == code
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model", "smal"], "no model is called 'smal': did you mean small"),
        (["--model", "absent.json"], "absent.json cannot be read"),
        (["--stages", "7"], "7 stages need 7 layers and the model has 6: give at most 6 stages"),
        (["--stages", "0"], "--stages cannot be 0"),
        (["--ratio", "7"], "ratio 7 does not divide the width 256: choose one of [2, 4, 8,"),
        (["--replicas", "9"], "schedule.microbatches 8 cannot feed layout.replicas 9"),
        (["--lr", "-1"], "--lr cannot be -1.0"),
        (["--seed", "-1"], "--seed cannot be -1"),
        (["--data", "absent"], "there is no source 'absent'"),
        (["--epoch", "1"], "--epoch is that of the base of --from DIR: give both, or neither"),
        (["--from", "absent"], "absent: there is no run of `iota up`; `iota spec --from` takes others"),
        (["--from", "absent", "--init", "llama"], "--init and --from both say what the run starts from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert sentence in refused(capsys, "up", *flags)
    assert list(folder.iterdir()) == []


def test_an_empty_corpus_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "corpus").mkdir()
    assert "corpus" in refused(capsys, "up", "--data", "corpus")
    assert [p.name for p in folder.iterdir()] == ["corpus"]


def test_an_unknown_setting_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTA_THREDS", "2")
    assert "did you mean IOTA_THREADS?" in refused(capsys, "up")
    assert list(folder.iterdir()) == []


def test_a_port_in_use_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in refused(capsys, "up", "--port", port)
    assert list(folder.iterdir()) == []


def test_a_run_directory_in_use_is_refused(held_run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "up", "--run-dir", held_run.root)
    assert f"is in use by process {os.getpid()}" in said


def test_a_run_directory_of_other_options_is_refused_by_the_names_that_differ(
    held_run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    held_run.__exit__()
    before = sorted(held_run.root.rglob("*"))
    said = refused(capsys, "up", "--run-dir", held_run.root, "--stages", "2", "--seed", "5", "--epochs", "3")
    held_run.__enter__()
    assert "--stages 2 (there 3), --seed 5 (there 0)" in said
    assert "--epochs" not in said
    assert sorted(held_run.root.rglob("*")) == before


def test_a_folder_that_is_no_run_is_refused_and_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter1.txt").write_text("words")
    assert "holds something that is no run" in refused(capsys, "up", "--run-dir", "thesis")
    assert [p.name for p in (folder / "thesis").iterdir()] == ["chapter1.txt"]


def test_a_disk_without_room_has_no_negative_size(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iota.planning.machine.shutil.disk_usage", lambda place: SimpleNamespace(free=0))
    assert "there are 0.00 GB: free some" in refused(capsys, "up", "--run-dir", folder / "run")


def test_a_file_as_run_directory_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_text("words")
    assert "is a file" in refused(capsys, "up", "--run-dir", "file")


def test_a_wallet_that_is_not_there_is_named_with_the_command_that_makes_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "wallet", "show", "--wallet.path", folder, "--wallet.name", "absent")
    assert "iota wallet new --wallet.name absent" in said


def test_a_status_without_an_orchestrator_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers here
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        assert f"no orchestrator answers at {url}" in refused(capsys, "status", "--orchestrator", url, code=1)


def test_an_export_of_no_run_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run in" in refused(capsys, "export", "--run-dir", folder, "--to", folder / "out")
    assert list(folder.iterdir()) == []


def test_options_are_kept_and_flags_that_agree_resume(held_run: RunDir) -> None:
    saved = held_run.saved_options()
    assert saved is not None
    assert saved.differences({"stages": 3, "epochs": 3}) == []


def test_a_model_file_gives_the_spec_its_shape(folder: Path) -> None:
    shape = SwarmOptions().spec("0" * 64, 257).model
    (folder / "mine.json").write_bytes(shape.canonical())
    spec = SwarmOptions.of(model="mine.json").spec("0" * 64, 257)
    assert (spec.model, spec.name) == (shape, "mine")


def test_the_vocabulary_grows_to_the_tokenizers() -> None:
    assert SwarmOptions().spec("0" * 64, 5000).model.vocab_size == 5000
    assert SwarmOptions().spec("0" * 64, 200).model.vocab_size == 257


def test_a_run_that_lost_its_journal_is_refused_before_anything_starts(
    held_run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    log = held_run.node("miner-00") / "receipts.jsonl"
    log.parent.mkdir(parents=True)
    log.touch()
    held_run.__exit__()
    said = refused(capsys, "up", "--run-dir", held_run.root)
    assert "lost its journal (journal.db)" in said
    assert "goes on from here" not in said
    assert not held_run.logs.exists()
    held_run.__enter__()


@pytest.mark.parametrize("command", [["status"], ["explain", "miner-00"], ["export", "--to", "model"]])
def test_a_folder_without_a_run_and_a_run_without_its_journal_are_told_apart(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no run in run" in refused(capsys, *command, "--run-dir", "run")
    write_json(folder / "run" / "options.json", {})
    write_json(folder / "run" / "run.json", {"url": "http://127.0.0.1:1", "hotkeys": {"miner-00": "5Fake"}})
    assert "has lost its journal (journal.db)" in refused(capsys, *command, "--run-dir", "run")
