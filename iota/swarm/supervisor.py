"""Keeping the swarm's processes alive: what dies is started again, a bounded number of times."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from iota.retry import Backoff
from iota.swarm.processes import Launcher, PreloadFailed, Program, Running

USER_ERROR = 2
_LAST_LINES = 8
_BACKOFF = Backoff(first_s=0.5, max_s=10.0, jitter=(1.0, 1.0))
_log = logging.getLogger(__name__)


class ProgramFailed(Exception):
    """A process of the swarm cannot be kept alive; the message names its log and quotes its end."""


@dataclass(frozen=True)
class RestartRule:
    """At most `most` restarts in `window_s` seconds, with the pauses of `backoff`."""

    most: int = 5
    window_s: float = 600.0
    backoff: Backoff = _BACKOFF


class Supervisor:
    """Runs programs until they end or cannot be kept alive."""

    def __init__(
        self,
        launcher: Launcher,
        rule: RestartRule | None = None,
        started: Callable[[Running], None] = lambda running: None,
    ) -> None:
        """`started` is told of every process, also of the restarted ones."""
        self._launcher = launcher
        self._rule = rule or RestartRule()
        self._started = started
        self.restarts: dict[str, int] = {}
        """Program name -> how often it was started again."""

    async def keep(self, program: Program) -> None:
        """Keep `program` running; returns when it has ended as it should (`Program.ends`).

        Raises:
            ProgramFailed: it refuses its arguments (exit code 2), or dies too often.
        """
        loop = asyncio.get_running_loop()
        recent: deque[float] = deque()
        while True:
            code = await self._run_once(program)
            if code == 0 and program.ends:
                return
            if code == USER_ERROR:
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
        self._started(running)
        return await asyncio.shield(running.ended)


def last_lines(path: Path, count: int = _LAST_LINES) -> list[str]:
    """The last lines of a log; none if there is no log."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        return file.read().decode(errors="replace").splitlines()[-count:]


def _report(program: Program, what: str) -> str:
    quoted = "".join(f"\n    {line}" for line in last_lines(program.log))
    return f"{program.name} {what}; its log is {program.log} and ends with:{quoted}"
