"""One process per hotkey, with real processes: the second is refused, and nothing outlives a kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iota.identity.hotkey_lock import HotkeyInUse, HotkeyNotLockable, hold_hotkey
from iota.identity.keys import create_hotkey, hotkey_path

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from iota.identity.hotkey_lock import hold_hotkey
with hold_hotkey("wallet", "key", sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def wallets(tmp_path: Path) -> Path:
    create_hotkey("wallet", "key", tmp_path)
    return tmp_path


@contextmanager
def holder(wallets: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the hotkey."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(wallets)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_second_process_is_told_who_has_the_hotkey(wallets: Path) -> None:
    with (
        holder(wallets) as first,
        pytest.raises(HotkeyInUse) as refused,
        hold_hotkey("wallet", "key", wallets),
    ):
        pass
    assert f"in use by process {first.pid}: stop that one" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_killed_process_leaves_nothing_behind(wallets: Path) -> None:
    before = sorted(wallets.rglob("*"))
    with holder(wallets) as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with hold_hotkey("wallet", "key", wallets):
            assert sorted(wallets.rglob("*")) == before


def test_a_wallet_that_is_only_readable_will_do(wallets: Path) -> None:
    path = hotkey_path("wallet", "key", wallets)
    before = path.read_bytes(), path.stat().st_mtime_ns
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with holder(wallets), pytest.raises(HotkeyInUse), hold_hotkey("wallet", "key", wallets):
            pass
    finally:
        path.parent.chmod(0o700)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_hotkey_is_free_again_after_its_process_ended(wallets: Path) -> None:
    for _ in range(2):
        with hold_hotkey("wallet", "key", wallets):
            pass


def test_a_hotkey_that_is_not_there_cannot_be_held(wallets: Path) -> None:
    with pytest.raises(HotkeyNotLockable, match="No such file"), hold_hotkey("wallet", "none", wallets):
        pass
