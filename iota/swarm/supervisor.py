"""Restarts the swarm's processes when they die, a bounded number of times."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from iota.console.command import USER_ERROR
from iota.retry import Backoff
from iota.swarm.processes import Launcher, PreloadFailed, Program

_LAST_LINES = 8
_MAX_TAIL_BYTES = 16384
_BACKOFF = Backoff(first_s=0.5, max_s=10.0, jitter=(1.0, 1.0))
"""Without jitter: the processes of one machine share no server with those of others."""
_log = logging.getLogger(__name__)


class ProgramFailed(Exception):
    """A process of the swarm cannot be kept running; the message quotes the end of its log."""


@dataclass(frozen=True)
class RestartRule:
    """At most `most` restarts in `window_s` seconds, with the pauses of `backoff`."""

    most: int = 5
    window_s: float = 600.0
    backoff: Backoff = _BACKOFF


class Supervisor:
    """Runs programs, and restarts those that end too early."""

    def __init__(self, launcher: Launcher, rule: RestartRule | None = None) -> None:
        self._launcher = launcher
        self._rule = rule or RestartRule()
        self.restarts: dict[str, int] = {}
        """Number of restarts by program name."""

    async def keep(self, program: Program) -> None:
        """Keep `program` running; returns at its regular end (`Program.ends`).

        Raises:
            ProgramFailed: it refuses its arguments (exit code 2), or was restarted too often.
        """
        loop = asyncio.get_running_loop()
        recent: deque[float] = deque()
        while True:
            code = await self._run_once(program)
            if code == 0 and program.ends:
                return
            if code == USER_ERROR:  # its arguments or settings are wrong: a restart would not help
                raise ProgramFailed(_report(program, "refused to start"))
            while recent and recent[0] <= loop.time() - self._rule.window_s:
                recent.popleft()
            if len(recent) >= self._rule.most:
                raise ProgramFailed(
                    _report(program, f"ended {len(recent) + 1} times in {self._rule.window_s:.0f} s")
                )
            recent.append(loop.time())
            self.restarts[program.name] = self.restarts.get(program.name, 0) + 1
            _log.warning("%s ended with code %d: starting it again", program.name, code)
            await asyncio.sleep(self._rule.backoff.pause_s(len(recent)))

    async def _run_once(self, program: Program) -> int:
        try:
            running = await self._launcher.start(program)
        except PreloadFailed as error:
            _log.warning("%s", error)
            return -1
        return await asyncio.shield(running.ended)


def log_tail(path: Path) -> str:
    """The last lines of a log, each on an indented line of its own; empty if there is no log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _MAX_TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
    return "".join(f"\n    {line}" for line in lines)


def _report(program: Program, event: str) -> str:
    return f"{program.name} {event}; its log is {program.log} and ends with:{log_tail(program.log)}"
