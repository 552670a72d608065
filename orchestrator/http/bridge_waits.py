"""Waits of watchers for the next change of any shared variable."""

from __future__ import annotations

import asyncio

from orchestrator.bridge import Bridge


class BridgeWaits:
    """All watchers wait for one thing: a revision beyond the last one that they were woken for."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._woken_for = bridge.revision
        self._next: asyncio.Future[None] | None = None
        self.stopping = False

    async def changed(self, timeout_s: float) -> bool:
        """Wait for a change: False if none came in time, or the server stops.

        The caller must have looked, without an await since, at all changes so far.
        """
        if self.stopping or timeout_s <= 0:
            return False
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        woken = self._next
        await asyncio.wait([woken], timeout=timeout_s)
        return woken.done() and not self.stopping

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
        if self._next is not None:
            self._next.set_result(None)
            self._next = None
