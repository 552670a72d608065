"""Versions of the four programs, and the forms that they share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iota.console.command import INTERRUPTED, Stopped, run_command
from iota.console.version import versions, versions_line
from iota.swarm.invocation import resume_command, up_command

PROGRAMS = ["iota.cli.main", "miner.cli", "validator.cli", "orchestrator.cli"]


@pytest.mark.parametrize("module", PROGRAMS)
def test_a_program_says_its_versions_at_once_and_without_torch(module: str) -> None:
    code = (
        f"import sys, {module} as m\nsys.argv[1:] = ['--version']\n"
        "heavy = {'torch', 'transformers', 'bittensor', 'numpy'}\n"
        "try: m.main()\n"
        "except SystemExit as ended: print(ended.code, heavy & set(sys.modules))"
    )
    before = os.times()
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = os.times()
    assert shown.stdout.splitlines() == [versions_line(), "0 set()"]
    # Its own time, since the machine may be busy with something else.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.5


def test_the_versions_name_what_computes_and_what_talks_to_the_chain() -> None:
    assert list(versions()) == ["iota", "python", "torch", "transformers", "bittensor"]
    assert "none" not in versions().values()


@pytest.mark.parametrize("module", PROGRAMS)
def test_the_programs_offer_completion_alike(module: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    ).stdout
    for flag in ("--version", "--install-completion", "--show-completion"):
        assert flag in shown


def test_a_stopped_command_says_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    app = typer.Typer()

    @app.command()
    def work() -> None:
        raise Stopped("stopped; `./scripts/up --run-dir runs/1` goes on from here")

    with pytest.raises(SystemExit) as ended:
        run_command(app, [])
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == "stopped; `./scripts/up --run-dir runs/1` goes on from here\n"


def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, script: bool, on_path: bool) -> None:
    """A repository as this folder, with a virtual environment in which this process seems to run."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    iota = tmp_path / ".venv/bin/iota"
    iota.write_text("#!/bin/sh\n")
    iota.chmod(0o755)
    if script:
        (tmp_path / "scripts").mkdir()
        (tmp_path / "scripts/up").write_text("#!/bin/sh\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", str(iota.parent) if on_path else "/usr/bin")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("script", "on_path", "command"),
    [
        (True, False, "./scripts/up"),
        (True, True, "iota up"),
        (False, True, "iota up"),
        (False, False, "./.venv/bin/iota up"),
    ],
)
def test_the_command_that_goes_on_exists_for_this_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: bool, on_path: bool, command: str
) -> None:
    checkout(tmp_path, monkeypatch, script=script, on_path=on_path)
    assert up_command() == command
    assert resume_command(tmp_path / "runs" / "my run") == f"{command} --run-dir 'runs/my run'"
