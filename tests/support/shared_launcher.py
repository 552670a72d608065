"""One preloaded parent for all swarms of a process of tests, so that its imports (5 s of CPU) are paid once.

A swarm attaches to the parent's pipes with streams of its own event loop, and detaches when all of its nodes
have ended. Another environment, working directory or network namespace than the parent began with begins
another parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from asyncio.streams import FlowControlMixin
from pathlib import Path
from typing import Any

from iota.settings.environment import child_environment
from iota.swarm.processes import Launcher, _Preload
from iota.swarm.programs import preloaded

_THREADS = 1
_OF_ONE_TEST = "PYTEST_CURRENT_TEST"
"""A variable that pytest sets anew for each test."""


class _Parent:
    """The preloaded parent, which ends with this process."""

    def __init__(self) -> None:
        self.began_with = _surroundings()
        command = (sys.executable, "-m", "iota.swarm.child", str(os.getpid()), "preload")
        self.process = subprocess.Popen(
            (*command, "iota.swarm.preload:main", *preloaded(True)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=child_environment(_THREADS),
            start_new_session=True,
        )
        self._ready, self._waiting = False, threading.Lock()

    def wait_ready(self) -> None:
        """Block until its imports are done."""
        assert self.process.stdout is not None
        with self._waiting:
            if not self._ready:
                assert json.loads(self.process.stdout.readline()) == {"ready": True}
                self._ready = True

    def end(self) -> None:
        """End it: it does so when its orders do."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)

    @property
    def is_fit(self) -> bool:
        """Whether it runs, and began with what this process has now."""
        return self.process.poll() is None and self.began_with == _surroundings()


class _Attached:
    """The parent as `_Preload` uses a process: streams of this event loop over copies of its pipes."""

    def __init__(self, parent: _Parent) -> None:
        self.parent = parent
        self.stdin: asyncio.StreamWriter
        self.stdout = asyncio.StreamReader()
        self._transports: list[asyncio.BaseTransport] = []

    async def attach(self) -> None:
        """Open the streams. The parent was ready before, which `_Preload` has not heard."""
        process, loop = self.parent.process, asyncio.get_running_loop()
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdout.feed_data(b'{"ready": true}\n')
        source, target = (os.dup(pipe.fileno()) for pipe in (process.stdout, process.stdin))
        reading, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.stdout), os.fdopen(source, "rb", 0)
        )
        writing, protocol = await loop.connect_write_pipe(FlowControlMixin, os.fdopen(target, "wb", 0))
        self.stdin = asyncio.StreamWriter(writing, protocol, None, loop)
        self._transports = [reading, writing]

    def detach(self) -> None:
        """Close the copies; the parent goes on."""
        for transport in self._transports:
            transport.close()


_current: _Parent | None = None


def _parent() -> _Parent:
    """The parent, started anew where it does not fit. Only one swarm at a time has use for it."""
    global _current
    if _current is None or not _current.is_fit:
        if _current is not None:
            _current.end()
        _current = _Parent()
    return _current


class SharedLauncher(Launcher):
    """A launcher whose forked programs are children of the one parent."""

    def __init__(self) -> None:
        super().__init__((), Path(os.devnull), _THREADS)
        self._attached: _Attached | None = None

    async def preload(self) -> None:
        """Attach to the parent, which is started if there is none that fits."""
        async with self._starting:
            if self._preload is None or self._preload.dead:
                parent = _parent()
                await asyncio.to_thread(parent.wait_ready)
                attached: Any = _Attached(parent)
                await attached.attach()
                self._attached, self._preload = attached, _Preload(attached)
            await self._preload.ready()

    async def close(self, grace_s: float) -> None:
        """Stop this swarm's processes."""
        preload, self._preload = self._preload, None
        await super().close(grace_s)
        if preload is not None and self._attached is not None:
            preload._reader.cancel()
            self._attached.detach()


def _surroundings() -> tuple[str, str, dict[str, str]]:
    variables = {name: text for name, text in os.environ.items() if name != _OF_ONE_TEST}
    return os.getcwd(), os.readlink("/proc/thread-self/ns/net"), variables
