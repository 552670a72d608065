"""The cap on this process's compute, and the one worker thread that replays run in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

_T = TypeVar("_T")
_LONGEST_NAP_S: Final = 1.0


class Budget:
    """How much of the machine this process may use: CPU seconds against wall seconds x cores.

    Everything counts, imports and networking too, since the process began (`already_s` before now).
    What was not used is saved up. Clocks are arguments, so that the arithmetic can be tested.
    """

    def __init__(
        self,
        share: float,
        *,
        cores: int | None = None,
        already_s: float = 0.0,
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

    @property
    def share(self) -> float:
        """Share of the machine's compute used so far."""
        wall = (self._wall() - self._started) * self._cores
        return self._cpu() / wall if wall > 0 else 0.0

    @property
    def owed_s(self) -> float:
        """Wall seconds to wait until the share is back under the cap; 0 while it is."""
        wall = self._wall() - self._started
        return max(0.0, self._cpu() / (self.allowed * self._cores) - wall)

    async def pause(self) -> None:
        """Wait while above the cap. Whoever has a deadline sets it around this."""
        while (owed := self.owed_s) > 0:
            nap = min(owed, _LONGEST_NAP_S)
            self.paused_s += nap
            await asyncio.sleep(nap)


class Worker:
    """Runs one unit of replay at a time, each after the budget has let it through."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self.busy_s = 0.0

    async def run(self, unit: Callable[[], _T]) -> _T:
        await self.budget.pause()
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, unit)

    def _timed(self, unit: Callable[[], _T]) -> _T:
        started = time.perf_counter()
        try:
            return unit()
        finally:
            self.busy_s += time.perf_counter() - started

    def close(self) -> None:
        """Let the unit that is running end, and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
