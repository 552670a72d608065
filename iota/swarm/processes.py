"""Starts and stops the swarm's processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from iota.settings.environment import child_environment
from iota.system.processes import CAN_FORK, ask_group_to_stop, kill_group, own_group
from iota.system.signals import KILLED

READY_S = 120.0
"""Longest that importing the preloaded modules may take."""
SPAWN_S = 30.0
"""Longest that one fork may take, on a machine that is busy."""
KILL_S = 10.0
"""Longest that a killed process may take to end."""


@dataclass(frozen=True)
class Program:
    """One console command of the swarm."""

    name: str
    entry: str
    """`module:function`."""
    arguments: tuple[str, ...]
    log: Path
    forked: bool = False
    """True where it is forked from the preloaded parent, if this system can."""
    ends: bool = False
    """True where exit code 0 is a regular end; otherwise every exit is a failure."""


@dataclass(frozen=True)
class Running:
    """A started process, leader of its own process group."""

    program: Program
    pid: int
    ended: asyncio.Future[int]
    """Resolves to the exit code; -n if signal n ended it."""

    def stop(self) -> None:
        """Ask the whole process group to stop; does nothing after the end."""
        if not self.ended.done():
            ask_group_to_stop(self.pid)

    def kill(self) -> None:
        """End the whole process group at once; does nothing after the end."""
        if not self.ended.done():
            kill_group(self.pid)


class PreloadFailed(Exception):
    """The preloaded parent could not be started, or ended while it was needed."""


class Launcher:
    """Starts programs, each by itself or forked from one preloaded parent, and stops those that still run.

    To be used from the main thread: on Linux a child ends with the thread that forked it.
    """

    def __init__(self, preload: tuple[str, ...], preload_log: Path, threads: int) -> None:
        """`preload` are modules that forked programs share; `threads` are CPU threads of each program."""
        self._preload_modules = preload
        self._preload_log = preload_log
        self._environment = child_environment(threads)
        self._preload: _Preload | None = None
        self._running: set[Running] = set()
        self._starting = asyncio.Lock()

    @property
    def running(self) -> list[Running]:
        """The processes that have not ended."""
        return [r for r in self._running if not r.ended.done()]

    async def preload(self) -> None:
        """Start the preloaded parent unless it runs; returns when its imports are done.

        Where a process cannot be forked after its imports there is none, and this does nothing.

        Raises:
            PreloadFailed: it ended, or took more than `READY_S`.
        """
        if not CAN_FORK:
            return
        async with self._starting:
            if self._preload is None or self._preload.dead:
                process = await self._execute(
                    "preload", "iota.swarm.preload:main", self._preload_modules, self._preload_log, pipes=True
                )
                self._preload = _Preload(process)
            await self._preload.ready()

    async def start(self, program: Program) -> Running:
        """Start `program`.

        Raises:
            PreloadFailed: the parent that it is to be forked from cannot be started.
        """
        program.log.parent.mkdir(parents=True, exist_ok=True)
        if program.forked and CAN_FORK:
            await self.preload()
            assert self._preload is not None
            running = await self._preload.start(program)
        else:
            process = await self._execute(program.name, program.entry, program.arguments, program.log)
            ended = asyncio.create_task(process.wait(), name=f"wait for {process.pid}")
            running = Running(program, process.pid, ended)
        self._running.add(running)
        running.ended.add_done_callback(lambda _: self._running.discard(running))
        return running

    async def stop(self, running: list[Running], grace_s: float) -> None:
        """Send SIGTERM, and after `grace_s` seconds SIGKILL to the processes that are left."""
        left = [r for r in running if not r.ended.done()]
        for end, bound_s in ((Running.stop, grace_s), (Running.kill, KILL_S)):
            for process in left:
                end(process)
            if left:
                await asyncio.wait([r.ended for r in left], timeout=bound_s)
            left = [r for r in left if not r.ended.done()]

    async def close(self, grace_s: float) -> None:
        """Stop all processes: first the nodes, so that they can still reach their servers."""
        await self.stop([r for r in self._running if r.program.forked], grace_s)
        await self.stop(list(self._running), grace_s)
        if self._preload is not None:
            await self._preload.close()

    async def _execute(
        self, name: str, entry: str, arguments: tuple[str, ...], log: Path, *, pipes: bool = False
    ) -> asyncio.subprocess.Process:
        log.parent.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-m", "iota.swarm.child", str(os.getpid()), name, entry, *arguments)
        with log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipes else output,
                stderr=output,
                env=self._environment,
                **own_group(),
            )


class _Preload:
    """The connection to the preloaded parent (`iota.swarm.preload`), over its stdin and stdout."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._started: dict[str, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._reader = asyncio.create_task(self._read(), name="preload answers")

    @property
    def dead(self) -> bool:
        return self._reader.done()

    async def ready(self) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), READY_S)
        except TimeoutError:
            raise PreloadFailed(f"importing the model's code took more than {READY_S:.0f} s") from None

    async def start(self, program: Program) -> Running:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._started[program.name] = started
        order = {
            "name": program.name,
            "entry": program.entry,
            "arguments": list(program.arguments),
            "log": str(program.log),
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()
            pid = await asyncio.wait_for(started, SPAWN_S)
        except (ConnectionError, TimeoutError):
            raise PreloadFailed(f"the preloaded parent did not start {program.name}") from None
        return Running(program, pid, self._ended[pid])

    async def close(self) -> None:
        """End the parent, and with it the children that are left."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5.0)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.wait([self._reader], timeout=5.0)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            if "ready" in answer:
                self._ready.set_result(None)
            elif "started" in answer:
                self._ended[answer["pid"]] = asyncio.get_running_loop().create_future()
                waiting = self._started.pop(answer["started"])
                if not waiting.done():
                    waiting.set_result(answer["pid"])
            else:
                self._ended.pop(answer["pid"]).set_result(answer["code"])
        failure = PreloadFailed("the preloaded parent of the nodes ended")
        if not self._ready.done():
            self._ready.set_exception(failure)
        for waiting in self._started.values():
            if not waiting.done():
                waiting.set_exception(failure)
        # The kernel has killed the children with their parent.
        for ended in self._ended.values():
            ended.set_result(-KILLED)
        self._ended.clear()
