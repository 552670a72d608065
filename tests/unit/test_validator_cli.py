"""`iota-validator` on a command line: what is wrong is said in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from validator.cli import main

ARGUMENTS = ["--netuid", "9", "--network", "http://127.0.0.1:1"]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["iota-validator", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("command", ["start", "register"])
def test_a_missing_wallet_is_one_sentence_and_exit_2(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wallet = ["--wallet.name", "none", "--wallet.hotkey", "none", "--wallet.path", str(tmp_path)]
    assert call(monkeypatch, command, *ARGUMENTS, *wallet) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "iota wallet new" in said


def test_a_compute_share_above_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "start", "--compute-share", "1.5") == 2
    assert "compute-share" in capsys.readouterr().err


def test_help_imports_no_torch() -> None:
    code = "import sys, validator.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
