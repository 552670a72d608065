"""A run's objects as audits read them: a store that restarts makes no audit inconclusive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from iota.client.run_objects import TRANSFER_S, RunObjects
from iota.retry import Backoff
from iota.store import StoreUnavailable

PATIENCE_S: Final = 60.0
"""For how long an object is asked for while the store does not answer. An audit's deadline may end it."""
_BACKOFF: Final = Backoff(first_s=0.5, max_s=5.0)


class PatientObjects(RunObjects):
    """As `RunObjects`, with reads that go on for `patience_s` while the store does not answer."""

    patience_s = PATIENCE_S

    async def get(
        self, key: str, max_bytes: int, url: str | None = None, *, within_s: float = TRANSFER_S
    ) -> bytes:
        """As that of `RunObjects`."""
        read = super().get
        return await self._persist(lambda: read(key, max_bytes, url, within_s=within_s))

    async def get_range(self, key: str, start: int, stop: int) -> bytes:
        """As that of `RunObjects`."""
        read = super().get_range
        return await self._persist(lambda: read(key, start, stop))

    async def _persist(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        end, failures = time.monotonic() + self.patience_s, 0
        while True:
            try:
                return await read()
            except StoreUnavailable:
                failures += 1
                pause_s = _BACKOFF.pause_s(failures)
                if time.monotonic() + pause_s > end:
                    raise
            await asyncio.sleep(pause_s)
