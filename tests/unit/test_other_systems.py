"""macOS and Windows, as far as they show on Linux: without what they lack, and under their names."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iota.console.signals import call_on_stop
from iota.swarm import processes
from iota.swarm.processes import Launcher, Program
from iota.system.files import open_binary, read_at
from iota.system.signals import KILLED, present

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
LOCKS = """
import sys
from pathlib import Path
import filelock  # chooses by the true system
sys.platform = "win32"
from iota.files import FileLock
path = Path(sys.argv[1])
path.write_bytes(b"a key")
for _ in range(2):
    with FileLock(path, RuntimeError, create=False):
        try:
            FileLock(path, lambda: ValueError("taken"))
        except ValueError as error:
            print(error)
print(path.read_bytes().decode())
"""
CHILD = """
import os, sys, time
import psutil
sys.platform = "darwin"
from iota.system.processes import exit_with_parent
exit_with_parent(os.getppid())
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = f"""
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True) as child:
    print(child.stdout.readline(), end="", flush=True)
    sys.stdin.read()
"""


def run(*arguments: str) -> str:
    """What a child process of ours prints."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_every_module_imports_under_another_systems_name(system: str) -> None:
    """On Windows without the modules, functions and signals that only POSIX has."""
    assert int(run("-m", "tests.support.other_system", system)) > 500


def test_a_lock_on_windows_excludes_and_leaves_the_file_alone(tmp_path: Path) -> None:
    """By the library's lock for POSIX: its lock for Windows was not run."""
    assert run("-c", LOCKS, str(tmp_path / "key")) == "taken\ntaken\na key\n"


def test_without_a_kernel_that_does_it_a_process_still_ends_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        handle = os.pidfd_open(int(parent.stdout.readline()))
        try:
            assert not select.select([handle], [], [], 0)[0]
            parent.kill()
            assert select.select([handle], [], [], DEADLINE_S)[0]
        finally:
            os.close(handle)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores the handlers of signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_a_loop_without_signal_handlers_is_woken_by_a_signal(
    handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    stopped = asyncio.Event()
    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse)
    call_on_stop(stopped.set)
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE_S):
        await stopped.wait()


def test_signals_that_a_system_lacks_are_left_out() -> None:
    assert present("SIGTERM", "SIGNONE", "SIGBREAK", "SIGINT") == [signal.SIGTERM, signal.SIGINT]
    assert KILLED == signal.SIGKILL


async def test_where_nothing_is_forked_a_program_runs_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "CAN_FORK", False)
    launcher = Launcher(("no_such_module",), tmp_path / "preload.log", threads=1)
    try:
        await launcher.preload()
        program = Program("node", "json.tool:main", ("--help",), tmp_path / "node.log", forked=True)
        running = await launcher.start(program)
        async with asyncio.timeout(DEADLINE_S):
            assert await running.ended == 0
    finally:
        await launcher.close(grace_s=5.0)
    assert not (tmp_path / "preload.log").exists()


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_a_read_begins_at_its_offset(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(64)))
    monkeypatch.setattr(sys, "platform", system)
    descriptor = open_binary(path)
    try:
        assert read_at(descriptor, 4, 26) == bytes(range(26, 30))
        assert read_at(descriptor, 100, 60) == bytes(range(60, 64))
    finally:
        os.close(descriptor)
