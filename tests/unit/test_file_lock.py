"""A lock has one holder among all processes, and ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iota.files import FileLock

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from iota.files import FileLock
with FileLock(Path(sys.argv[1]), RuntimeError):
    print("held", flush=True)
    sys.stdin.read()
"""


class Taken(Exception):
    """Another process has it."""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_with_the_callers_own_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_elsewhere(path), pytest.raises(Taken, match="by another"):
        FileLock(path, lambda: Taken("taken by another"))


def test_a_second_lock_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock", Taken), pytest.raises(Taken):
        FileLock(tmp_path / "lock", Taken)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_elsewhere(path) as holder:
        holder.kill()
        holder.wait()
        FileLock(path, Taken).release()


def test_a_lock_is_free_after_its_release_and_after_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path, Taken)
    with pytest.raises(Taken):
        FileLock(path, Taken)
    lock.release()
    with FileLock(path, Taken):
        pass


def test_a_refusal_leaves_no_file_open(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock", Taken):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(Taken):
                FileLock(tmp_path / "lock", Taken)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_of_ones_own_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock", Taken):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_locked_without_being_changed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"precious")
    path.chmod(0o400)
    with FileLock(path, Taken, create=False):
        assert path.read_bytes() == b"precious"


def test_a_file_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="key"):
        FileLock(tmp_path / "key", Taken, create=False)
    assert not (tmp_path / "key").exists()
