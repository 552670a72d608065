"""Restarts the swarm's processes when they die, a bounded number of times."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from iota.console.command import USER_ERROR
from iota.retry import Backoff
from iota.swarm.log_ends import ended_because, log_size, log_tail
from iota.swarm.processes import Launcher, PreloadFailed, Program

_MAX_ENDS = 50
"""Newest ends that are kept for the summary."""
_BACKOFF = Backoff(first_s=0.5, max_s=10.0, jitter=(1.0, 1.0))
"""Without jitter: the processes of one machine share no server with those of others."""
_log = logging.getLogger(__name__)


class ProgramFailed(Exception):
    """A process of the swarm cannot be kept running; the message says why and quotes the end of its log."""


@dataclass(frozen=True)
class RestartRule:
    """At most `most` restarts in `window_s` seconds, with the pauses of `backoff`."""

    most: int = 5
    window_s: float = 600.0
    backoff: Backoff = _BACKOFF


class Supervisor:
    """Runs programs, and restarts those that end too early."""

    def __init__(
        self,
        launcher: Launcher,
        rule: RestartRule | None = None,
        describe: Callable[[str], str] = lambda name: name,
    ) -> None:
        """`describe` gives the words for a program by its name."""
        self._launcher = launcher
        self._rule = rule or RestartRule()
        self._describe = describe
        self.ends: deque[str] = deque(maxlen=_MAX_ENDS)
        """A sentence for each of the newest ends that a restart followed."""
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
            before = log_size(program.log)
            code = await self._run_once(program)
            if code == 0 and program.ends:
                return
            who = self._describe(program.name)
            if code == USER_ERROR:  # its arguments or settings are wrong: a restart would not help
                raise ProgramFailed(_report(program, f"{who} refused to start"))
            how = f"{who} {ended_because(code, program.log, before)}"
            while recent and recent[0] <= loop.time() - self._rule.window_s:
                recent.popleft()
            if len(recent) >= self._rule.most:
                times = f"{who} ended {len(recent) + 1} times in {self._rule.window_s:.0f} s"
                raise ProgramFailed(_report(program, times))
            recent.append(loop.time())
            self.restarts[program.name] = self.restarts.get(program.name, 0) + 1
            self.ends.append(how)
            _log.warning("%s; log: %s; restart %d of %d", how, program.log, len(recent), self._rule.most)
            await asyncio.sleep(self._rule.backoff.pause_s(len(recent)))

    async def _run_once(self, program: Program) -> int:
        try:
            running = await self._launcher.start(program)
        except PreloadFailed as error:
            _log.warning("%s", error)
            return -1
        return await asyncio.shield(running.ended)


def _report(program: Program, event: str) -> str:
    return f"{event}; its log is {program.log} and ends with:{log_tail(program.log)}"
