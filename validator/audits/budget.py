"""The cap on this process's compute, and the worker thread that replays run in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

_T = TypeVar("_T")
_LONGEST_NAP_S: Final = 1.0
"""The share is looked at again this often: other threads use CPU meanwhile."""


class Budget:
    """Caps the process's share of the machine: CPU seconds / (wall seconds x cores).

    The share is over the whole life of the process, so unused time is saved up, and imports and
    networking count. Of an accelerator it is the share of the time in which units run.

    Args:
        share: the cap, in (0, 1]. Raises ValueError outside it.
        cores: of the machine; None asks the system.
        already_s: how long ago the process began.
        accelerator: whether units compute on one.
        wall, cpu: clocks in seconds.
    """

    def __init__(
        self,
        share: float,
        *,
        cores: int | None = None,
        already_s: float = 0.0,
        accelerator: bool = False,
        wall: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"a compute share of {share} makes no sense: give more than 0 and at most 1")
        self.allowed = share
        self._cores = cores or os.cpu_count() or 1
        self._wall, self._cpu = wall, cpu
        self._started = wall() - already_s
        self.paused_s = 0.0
        self._accelerator, self._unit_s = accelerator, 0.0

    def ran(self, seconds: float) -> None:
        """A unit has run for so long."""
        self._unit_s += seconds

    @property
    def share(self) -> float:
        """Share of the machine's compute used since the process began."""
        wall = self._wall() - self._started
        return self._used_s / wall if wall > 0 else 0.0

    @property
    def owed_s(self) -> float:
        """Wall seconds until the share is back under the cap; 0 while it is under it."""
        wall = self._wall() - self._started
        return max(0.0, self._used_s / self.allowed - wall)

    @property
    def _used_s(self) -> float:
        """Seconds of the whole machine, or of its accelerator if that is more."""
        return max(self._cpu() / self._cores, self._unit_s if self._accelerator else 0.0)

    async def pause(self) -> None:
        """Wait while above the cap. It has no deadline of its own."""
        while (owed := self.owed_s) > 0:
            nap = min(owed, _LONGEST_NAP_S)
            self.paused_s += nap
            await asyncio.sleep(nap)


class Worker:
    """One thread for replays. Each call first waits for the budget, if there is one."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self.busy_s = 0.0

    async def run(self, unit: Callable[[], _T]) -> _T:
        """Run a unit on the thread and return its result; raises what it raises."""
        if self.budget is not None:
            await self.budget.pause()
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, unit)

    def _timed(self, unit: Callable[[], _T]) -> _T:
        started = time.perf_counter()
        try:
            return unit()
        finally:
            took = time.perf_counter() - started
            self.busy_s += took
            if self.budget is not None:
                self.budget.ran(took)

    def close(self) -> None:
        """Finish the running unit, discard the queued ones and end the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
