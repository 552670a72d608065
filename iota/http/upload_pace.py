"""The most that a process sends of frames and objects in a second (`--max-upload`)."""

from __future__ import annotations

import asyncio
from typing import Final

BURST_S: Final = 0.05
"""What was not sent for this long may be caught up."""


class UploadPace:
    """Shared by all transfers of a process; each asks before it hands a chunk to a socket."""

    def __init__(self, rate: float | None) -> None:
        """`rate` is in bytes a second; None is no bound."""
        self._rate = rate
        self._turn = asyncio.Lock()
        """Of the transfer that is served: those that are cancelled meanwhile take nothing."""
        self._free_at = 0.0
        """Loop time at which all that was granted so far has been sent at the rate."""

    async def spend(self, size: int) -> None:
        """Wait until `size` more bytes may be sent. Transfers that wait are served in order."""
        if self._rate is None:
            return
        async with self._turn:
            now = asyncio.get_running_loop().time()
            begins = max(self._free_at, now - BURST_S)
            if begins > now:
                await asyncio.sleep(begins - now)
            self._free_at = begins + size / self._rate
