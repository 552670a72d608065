"""Merges parts again whose mergers disagree, and records the result."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from blake3 import blake3

from iota.objects import SettledKey
from iota.outer.merge import MergedPart, merge_part
from iota.protocol.events import Contribution, MergeAssign
from iota.protocol.frames import StoredObject
from iota.store import OUTAGES, ObjectMissing, StoreError
from orchestrator.coordinator import Remerged
from orchestrator.http.disputes import Disputes

_PUT_S: Final = 120.0


class Remerger(Disputes[MergeAssign]):
    """Merges disputed parts in a thread, with one contribution in memory at a time.

    A contribution that the store cannot give is unreadable.
    """

    what = "a merge that is disputed"

    def disputed(self) -> list[MergeAssign]:
        """The parts that the orchestrator is to merge itself."""
        return self._coordinator.disputed_parts()

    async def made(self, dispute: MergeAssign) -> Remerged:
        """Merge one part and store it."""
        found = await self._merge(dispute)
        stored = await self._put(dispute, found)
        return Remerged(
            at=self._recorder.stamp(),
            epoch=dispute.epoch,
            stage=dispute.stage,
            part=dispute.part,
            stored=stored,
            left_out=found.left_out,
        )

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
