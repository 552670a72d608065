"""Reads the merged parts on which mergers agree, before they count."""

from __future__ import annotations

import asyncio
from typing import Final

from iota.outer.partition import PartError
from iota.store import OUTAGES, ObjectMissing, ObjectStore, StoreError
from orchestrator.coordinator import Coordinator, CopyRead, Finding, UnreadCopy
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder
from orchestrator.http.store_reads import verified_part
from orchestrator.http.store_tries import StoreTries

_AT_ONCE: Final = 4
"""Parts that are read at once; each is in memory until it is hashed."""


class CopyReader:
    """Records what the store has under the key of one copy of each merged part.

    Mergers agree on a digest that they signed; only the bytes show whether the one whose copy is used stored
    what has it. A whole merge is read once: 26 GB for a stage of 6.5 billion parameters.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        recorder: Recorder,
        store: ObjectStore,
        metrics: Metrics,
        scale: float = 1.0,
    ) -> None:
        """`scale` is that of `Watch`."""
        self._coordinator, self._recorder, self._store = coordinator, recorder, store
        self._tries = StoreTries("the object store, for a merged part", metrics, scale)
        self._due = asyncio.Event()

    def wake(self) -> None:
        """Make `run` look for copies."""
        if self._coordinator.unread_copies(1):
            self._due.set()

    async def run(self) -> None:
        """Read copies until cancelled."""
        while True:
            while copies := self._coordinator.unread_copies(_AT_ONCE):
                async with asyncio.TaskGroup() as tasks:
                    for copy in copies:
                        tasks.create_task(self._settle(copy))
            await self._due.wait()
            self._due.clear()

    async def read(self, copy: UnreadCopy) -> CopyRead:
        """The entry that says what is stored. Raises one of `OUTAGES` while the store is away."""
        found = await self._found(copy)
        return copy.read(self._recorder.stamp(), found)

    async def _found(self, copy: UnreadCopy) -> Finding:
        try:
            await verified_part(self._store, copy.stored)
        except OUTAGES:
            raise
        except ObjectMissing:
            return Finding.ABSENT
        except (StoreError, PartError):  # such as one that was stored with a Content-Encoding
            return Finding.OTHER
        return Finding.SOUND

    async def _settle(self, copy: UnreadCopy) -> None:
        async def settle() -> None:
            await self._recorder.record(await self.read(copy))

        await self._tries.persist(settle, lambda: self._coordinator.is_unread(copy))
