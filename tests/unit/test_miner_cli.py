"""What a miner says to mistakes: one sentence with the remedy, exit code 2, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iota.identity.keys import create_hotkey
from miner.disk import DataDirInUse, MinerDisk


def _start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "miner.cli", "start", *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("IOTA_", "BT_"))}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_a_missing_wallet_is_named_with_the_remedy(tmp_path: Path) -> None:
    done = _start("--wallet.path", str(tmp_path / "nowhere"), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "iota wallet new" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_setting_out_of_range_is_named_by_its_flag(tmp_path: Path) -> None:
    create_hotkey("w", "h", tmp_path)
    done = _start(
        "--wallet.path", str(tmp_path), "--wallet.name", "w", "--wallet.hotkey", "h", "--threads", "0"
    )
    assert done.returncode == 2
    assert "--threads" in done.stderr


def test_two_miners_cannot_share_a_directory(tmp_path: Path) -> None:
    with MinerDisk(tmp_path / "data"), pytest.raises(DataDirInUse, match="--data-dir"):
        MinerDisk(tmp_path / "data")
