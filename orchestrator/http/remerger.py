"""Merges parts again whose mergers disagree, and records the result."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from blake3 import blake3

from iota.console.watch import Watch
from iota.objects import SettledKey
from iota.outer.merge import MergedPart, merge_part
from iota.protocol.events import Contribution, MergeAssign
from iota.protocol.frames import StoredObject
from iota.protocol.problems import Problem
from iota.retry import Backoff
from iota.store import OUTAGES, ObjectMissing, ObjectStore, StoreError
from orchestrator.coordinator import Coordinator, Remerged
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder

_BACKOFF: Final = Backoff(first_s=0.5, max_s=10.0)
_PUT_S: Final = 120.0


class Remerger:
    """Merges one disputed part at a time, in a thread, with one contribution in memory at a time.

    What it finds is an entry of the journal, so that a replay needs no store. While the store does not answer
    it tries again, as long as the part is disputed. A contribution that the store cannot give is unreadable.
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
        self._metrics = metrics
        self._watch = Watch("the object store, for a merge that is disputed", scale=scale)
        self._due = asyncio.Event()

    def wake(self) -> None:
        """Make `run` look for disputed parts."""
        if self._coordinator.disputed_parts():
            self._due.set()

    async def run(self) -> None:
        """Merge disputed parts until cancelled."""
        while True:
            for assign in self._coordinator.disputed_parts():
                await self._settle(assign)
            await self._due.wait()
            self._due.clear()

    async def _settle(self, assign: MergeAssign) -> None:
        """Merge one part and record the result; try again while it is disputed."""
        failures = 0
        while assign in self._coordinator.disputed_parts():
            try:
                found = await self._merge(assign)
                stored = await self._put(assign, found)
                await self._recorder.record(
                    Remerged(
                        at=self._recorder.stamp(),
                        epoch=assign.epoch,
                        stage=assign.stage,
                        part=assign.part,
                        stored=stored,
                        left_out=found.left_out,
                    )
                )
            except (StoreError, OSError, Problem) as error:
                failures += 1
                self._metrics.failure("store")
                pause_s = _BACKOFF.pause_s(failures)
                self._watch.failed(error, pause_s)
                await asyncio.sleep(pause_s)
            else:
                self._watch.passed()

    async def _merge(self, assign: MergeAssign) -> MergedPart:
        with tempfile.TemporaryDirectory(prefix="iota-merge-") as folder:
            files = {c.hotkey: Path(folder) / c.hotkey for c in assign.contributions}
            for contribution in assign.contributions:
                try:
                    data = await self._store.get(contribution.stored.key)
                except ObjectMissing:
                    continue
                except OUTAGES:
                    raise
                except StoreError:
                    data = b""
                await asyncio.to_thread(files[contribution.hotkey].write_bytes, data)

            def read(contribution: Contribution) -> bytes | None:
                file = files[contribution.hotkey]
                return file.read_bytes() if file.exists() else None

            return await asyncio.to_thread(merge_part, self._coordinator.spec, assign, read)

    async def _put(self, assign: MergeAssign, found: MergedPart) -> StoredObject:
        digest = blake3(found.data).hexdigest()
        key = str(SettledKey(self._coordinator.spec.id, assign.epoch, assign.stage, assign.part, digest))
        async with asyncio.timeout(_PUT_S):
            await self._store.put(key, found.data)
        return StoredObject(key=key, digest=digest, size=len(found.data))
