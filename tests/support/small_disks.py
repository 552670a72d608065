"""Processes with a small file system of their own: a tmpfs in a user namespace, which needs no root."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_BLOCK = 4096
_START = """
mount -t tmpfs -o "size=$1" none "$2" || exit 1
if [ "$3" = 1 ]; then cat /dev/zero > "$2/filler" 2> /dev/null; fi
shift 3
exec "$@"
"""


@dataclass
class SmallDisk:
    """A process, and its file system as this process sees it."""

    process: asyncio.subprocess.Process
    folder: Path
    said: list[str] = field(default_factory=list)
    """Lines of its stdout and stderr."""

    @property
    def filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """Write until nothing more goes in."""
        with self.filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(_BLOCK))
            except OSError:
                assert shutil.disk_usage(self.folder).free == 0

    def empty(self) -> None:
        """Make room again."""
        self.filler.unlink()

    async def says(self, text: str, timeout_s: float = 30.0) -> str:
        """Wait for a line with `text`; returns the first one."""
        async with asyncio.timeout(timeout_s):
            while not (found := [line for line in self.said if text in line]):
                assert self.process.returncode is None, "\n".join(self.said)
                await asyncio.sleep(0.01)
        return found[0]

    async def collect(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.said.append(line.decode())


@asynccontextmanager
async def on_small_disk(
    mount: Path, size: int, program: list[str], *, full: bool = False
) -> AsyncIterator[SmallDisk]:
    """Run `python -m PROGRAM...` with a tmpfs of `size` bytes on `mount`; `full` fills it before."""
    mount.mkdir()
    arguments = ["sh", "-c", _START, "sh", str(size), str(mount), str(int(full)), sys.executable, "-um"]
    process = await asyncio.create_subprocess_exec(
        "unshare", "--user", "--map-root-user", "--mount", *arguments, *program,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    # The view of another process's mounts; all that is exec'ed keeps the process id.
    disk = SmallDisk(process, Path(f"/proc/{process.pid}/root{mount}"))
    reading = asyncio.create_task(disk.collect(process.stdout))
    try:
        yield disk
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def needs_small_disks() -> None:
    """Skip the test where this machine gives no user namespaces, as some containers do not."""
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no user namespaces here: {done.stderr.decode().strip()}")
