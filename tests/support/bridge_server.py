"""An orchestrator's server in a process of its own, which tests of the Bridge kill and start again.

python -m tests.support.bridge_server JOURNAL PORT

It serves until its standard input ends: a test that dies leaves none behind. Its key is that of
`tests.support.orchestrators`, and it has no limit on the rate of a hotkey.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.orchestrators import orchestrator

ROOT = Path(__file__).parents[2]


async def serve(journal: Path, port: int) -> None:
    """Serve until standard input ends."""
    async with orchestrator(journal, port=port, hotkey_rate=1e9, hotkey_burst=1e9) as running:
        print(running.url, flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


class Process:
    """The server's process, from the context's begin to its end; it can be killed and started in it."""

    def __init__(self, journal: Path, cores: set[int] | None = None) -> None:
        """`cores` are those that it may run on; None: all."""
        self._journal, self._cores = journal, cores
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self.url = ""

    async def __aenter__(self) -> Process:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, at the address that it had before."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.bridge_server", self._journal, str(self._port),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        if self._cores is not None:
            os.sched_setaffinity(self._process.pid, self._cores)
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        self.url = line.decode().strip()
        assert self.url, "the server did not start"
        self._port = int(self.url.rpartition(":")[2])

    async def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
