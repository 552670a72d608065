"""Following a run: its status, again and again, and the memory of its processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import aiohttp
import psutil

from iota.swarm.processes import Running
from iota.swarm.progress import Status

POLL_S = 0.25
ANSWER_S = 5.0
STARTUP_S = 60.0


class NotReady(Exception):
    """A server of the swarm did not answer in time."""


async def until_ready(session: aiohttp.ClientSession, name: str, url: str) -> None:
    """Wait until `url` answers 200.

    Raises:
        NotReady: it did not within `STARTUP_S`.
    """
    try:
        async with asyncio.timeout(STARTUP_S):
            while not await _answers(session, url):  # noqa: ASYNC110 - it cannot tell us by itself
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NotReady(f"the {name} did not answer at {url} within {STARTUP_S:.0f} s") from None


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def read_status(session: aiohttp.ClientSession, url: str) -> Status | None:
    """The orchestrator's status, or None while it does not answer (it may be starting again)."""
    try:
        async with session.get(f"{url}/v1/status", timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as answer:
            if answer.status != 200:
                return None
            status: Status = json.loads(await answer.read())
            return status
    except (aiohttp.ClientError, TimeoutError):
        return None


class MemoryPeaks:
    """The most resident memory that one process of each role has had, in bytes."""

    def __init__(self, running: Callable[[], list[Running]]) -> None:
        self._running = running
        self.bytes: dict[str, int] = {}

    def sample(self) -> None:
        """Look once. Pages shared with the preloaded parent count in each process that uses them."""
        for running in self._running():
            try:
                memory = psutil.Process(running.pid).memory_info().rss
            except psutil.NoSuchProcess:
                continue
            role = running.program.name.partition("-")[0]
            self.bytes[role] = max(self.bytes.get(role, 0), memory)
