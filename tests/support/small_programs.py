"""Little programs that test_processes.py starts as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from iota.swarm.processes import Launcher, Program


def wait_forever() -> None:
    """Write the process id to the file given, then wait."""
    _mark(Path(sys.argv[1]))
    signal.pause()


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_forever()


def end_with() -> None:
    """Count this start in the file given, say so, and exit with the code given."""
    path = Path(sys.argv[1])
    path.write_text(str(int(path.read_text() or 0) + 1) if path.exists() else "1")
    print(f"start {path.read_text()} went wrong", flush=True)
    sys.exit(int(sys.argv[2]))


def fail_after_warnings() -> None:
    """Log a warning and an error with a presigned URL, then fail as a program with a bug does."""
    print("2026-01-01 INFO miner: joining", flush=True)
    print("WARNING store: slow", file=sys.stderr, flush=True)
    raise RuntimeError("no such device: cuda:7 (asked http://store/x?X-Amz-Signature=SECRET)")


def die_until() -> None:
    """Exit with code 1 until the file given counts as many starts as given, then with 0."""
    path, wanted = Path(sys.argv[1]), int(sys.argv[2])
    count = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(count))
    sys.exit(0 if count >= wanted else 1)


def small_swarm() -> None:
    """Start one plain and one forked program below the folder given, and wait."""
    asyncio.run(_small_swarm(Path(sys.argv[1])))


async def _small_swarm(folder: Path) -> None:
    launcher = Launcher(("json",), folder / "preload.log", threads=1)
    for name, forked in (("plain", False), ("forked", True)):
        arguments = (str(folder / f"{name}.pid"),)
        entry = "small_programs:ignore_sigterm"
        await launcher.start(Program(name, entry, arguments, folder / f"{name}.log", forked=forked))
    await asyncio.Event().wait()


def _mark(path: Path) -> None:
    part = path.with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(path)


if __name__ == "__main__":
    small_swarm()
