"""Polls the swarm's servers, and samples the memory of its processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil

from iota.http import AnswerRefused, HttpClient, NoAnswer
from iota.protocol.run_status import take_status
from iota.protocol.status_delta import MAX_STATUS_BYTES, Status
from iota.swarm.processes import Running

POLL_S = 0.25
"""Period of the display."""
ANSWER_S = 5.0
"""Well above the status of 3,000 members."""
STARTUP_S = 60.0
"""Longest that a server may take to start, with a journal to replay."""


class NotReady(Exception):
    """A server of the swarm did not answer in time."""


async def until_ready(http: HttpClient, name: str, url: str) -> None:
    """Wait until `url` answers 200.

    Raises:
        NotReady: it did not within `STARTUP_S`; `name` names the server in the message.
    """
    try:
        async with asyncio.timeout(STARTUP_S):
            while await _get(http, url) is None:  # noqa: ASYNC110 - another process has no event to wait for
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NotReady(f"the {name} did not answer at {url} within {STARTUP_S:.0f} s") from None


async def read_status(http: HttpClient, url: str, before: Status | None = None) -> Status | None:
    """The orchestrator's status, or None while it does not answer (it may be restarting).

    The losses that `before` has, an earlier status of the run, are not asked for again. Raises
    MalformedStatus.
    """
    since = 0 if before is None else len(before["losses"])
    found = await _get(http, f"{url}/v1/status?since={since}")
    return None if found is None else take_status(before, found)


async def _get(http: HttpClient, url: str) -> bytes | None:
    """The body of an answer with status 200; None for anything else."""
    try:
        answer = await http.fetch("GET", url, max_bytes=MAX_STATUS_BYTES, timeout_s=ANSWER_S)
    except (NoAnswer, AnswerRefused):
        return None
    return answer.body if answer.status == 200 else None


class MemoryPeaks:
    """Peak resident memory of one process of each role, in bytes."""

    def __init__(self, running: Callable[[], list[Running]]) -> None:
        self._running = running
        self.bytes: dict[str, int] = {}

    def sample(self) -> None:
        """Measure all processes. Pages shared with the preloaded parent count in each of them."""
        for running in self._running():
            try:
                memory = psutil.Process(running.pid).memory_info().rss
            except psutil.NoSuchProcess:
                continue
            role = running.program.name.partition("-")[0]
            self.bytes[role] = max(self.bytes.get(role, 0), memory)
