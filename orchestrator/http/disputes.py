"""Disputes between members that the orchestrator settles, by making itself what they disagree on."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from iota.store import ObjectStore
from orchestrator.coordinator import Coordinator, Entry
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder
from orchestrator.http.store_tries import PASSING, StoreTries

T = TypeVar("T")


class Disputes(ABC, Generic[T]):
    """Settles one dispute at a time.

    What it finds is an entry of the journal, so that a replay needs no store. While the store does not answer
    it tries again, as long as there is the dispute.
    """

    what: ClassVar[str]
    """What waits for the store, in words for the log."""
    errors: ClassVar[tuple[type[Exception], ...]] = PASSING
    """Those of `made` after which it is tried again."""

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
        self._tries = StoreTries(f"the object store, for {self.what}", metrics, scale)
        self._due = asyncio.Event()

    @abstractmethod
    def disputed(self) -> list[T]:
        """The disputes of the run, in order."""

    @abstractmethod
    async def made(self, dispute: T) -> Entry:
        """The entry that settles a dispute."""

    def wake(self) -> None:
        """Make `run` look for disputes."""
        if self.disputed():
            self._due.set()

    async def run(self) -> None:
        """Settle disputes until cancelled."""
        while True:
            for dispute in self.disputed():
                await self._settle(dispute)
            await self._due.wait()
            self._due.clear()

    async def _settle(self, dispute: T) -> None:
        async def settle() -> None:
            await self._recorder.record(await self.made(dispute))

        await self._tries.persist(settle, lambda: dispute in self.disputed(), self.errors)
