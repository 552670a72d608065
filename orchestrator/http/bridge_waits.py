"""Waits of watchers for the next change of any shared variable."""

from __future__ import annotations

import asyncio

from orchestrator.bridge import Bridge


class BridgeWaits:
    """All watchers wait for one thing: a revision beyond the last one that they were woken for."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._woken_for = bridge.revision
        self._waiting: set[asyncio.Future[None]] = set()
        self.stopping = False

    async def changed(self, timeout_s: float) -> bool:
        """Wait for a change: False if none came in time, or the server stops.

        The caller must have looked, without an await since, at all changes so far.
        """
        if self.stopping or timeout_s <= 0:
            return False
        woken = asyncio.get_running_loop().create_future()
        self._waiting.add(woken)
        try:
            async with asyncio.timeout(timeout_s):
                await woken
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(woken)
        return not self.stopping

    def wake(self) -> None:
        """Wake all watchers, if anything has changed."""
        if self._bridge.revision != self._woken_for:
            self._woken_for = self._bridge.revision
            self._resolve()

    def stop(self) -> None:
        """End all waits, and let no later one begin."""
        self.stopping = True
        self._resolve()

    def _resolve(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for woken in waiting:
            if not woken.done():
                woken.set_result(None)
