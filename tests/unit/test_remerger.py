"""The orchestrator merges a disputed part itself, from a real store, and journals what it found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from iota.objects import DeltaKey, SettledKey
from iota.outer.partition import part_bytes
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.messages import Delta
from iota.store import EmbeddedStore, ObjectStore, StoreError
from iota.store.store import MAX_OBJECT
from orchestrator.coordinator import Coordinator, Remerged
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder
from orchestrator.http.remerger import Remerger
from tests.support.coordinators import Driven
from tests.support.journals import MemoryJournal
from tests.support.small_spec import small_spec
from tests.support.store_servers import SECRET, embedded


async def disputed(store: ObjectStore) -> tuple[Driven, list[Member]]:
    """A run whose stage 0 was merged in two ways; one of its two contributions is NaN."""
    schedule = {"epochs": 2, "steps": 1, "microbatches": 2}
    driven = Driven.training(small_spec(layout={"cuts": [1, 2], "replicas": 2}, schedule=schedule))
    for index in range(2):
        driven.run_microbatch(0, index)
    assert driven.state.phase is Phase.MERGING
    for member in driven.state.miners():
        parts = []
        for number, size in enumerate(driven.state.part_bytes[member.stage]):
            bad = member is driven.state.miners(0)[1]
            data = part_bytes(np.full(size // 4, np.nan if bad else 1e-3, np.float32))
            key = str(DeltaKey(driven.state.spec.id, 0, member.stage, member.hotkey, number))
            await store.put(key, data)
            parts.append(StoredObject(key=key, digest=blake3(data).hexdigest(), size=size))
        driven.say(member, reports=[Delta(epoch=0, parts=tuple(parts))])
    driven.draw_mergers()
    mergers = [driven.state.members[h] for h in driven.state.current.merges[0].parts[0].mergers]
    for digest, member in enumerate(mergers):
        driven.merge(member, 0, digest=digest)
    assert driven.coordinator.disputed_parts()
    return driven, mergers


@asynccontextmanager
async def remerging(
    coordinator: Coordinator, store: ObjectStore, journal: MemoryJournal, now: float
) -> AsyncIterator[asyncio.Event]:
    """The orchestrator at work; the event is set once it has applied an entry."""
    recorder = Recorder(journal, coordinator, Metrics(), lambda: now)
    made = Remerger(coordinator, recorder, store, Metrics(), scale=0.01)
    applied = asyncio.Event()
    recorder.after += [made.wake, applied.set]
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(recorder.run()), tasks.create_task(made.run())]
        yield applied
        for task in own:
            task.cancel()


async def test_a_disputed_part_is_merged_stored_and_journaled(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with embedded(tmp_path) as store:
        driven, mergers = await disputed(store)
        good, bad = driven.state.miners(0)
        async with remerging(driven.coordinator, store, journal, driven.now) as applied:
            await asyncio.wait_for(applied.wait(), 20)
        agreed = driven.state.current.merges[0].parts[0].agreed
        assert agreed is not None
        merged = np.frombuffer(await store.get(agreed.stored.key), "<f4")
    assert set(merged) == {np.float32(1e-3)}
    assert agreed.stored.key == str(SettledKey(driven.state.spec.id, 0, 0, 0, agreed.stored.digest))
    assert agreed.left_out == {bad.hotkey: LeftOut.NOT_FINITE}
    assert all(member.charged for member in mergers)
    (entry,) = (record.entry for record in journal.records)
    assert isinstance(entry, Remerged)
    assert good.hotkey not in " ".join(t for t in driven.state.incidents.named if "left out" in t)


async def test_a_contribution_that_the_store_cannot_give_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = MemoryJournal()
    async with embedded(tmp_path) as store:
        driven, _ = await disputed(store)
        first, get = driven.state.miners(0)[0], store.get

        async def refusing(key: str, max_bytes: int = MAX_OBJECT) -> bytes:
            if key == str(DeltaKey(driven.state.spec.id, 0, 0, first.hotkey, 0)):
                raise StoreError("GET: it sent a compressed body, which was not asked for")
            return await get(key, max_bytes)

        monkeypatch.setattr(store, "get", refusing)
        async with remerging(driven.coordinator, store, journal, driven.now) as applied:
            await asyncio.wait_for(applied.wait(), 20)
    agreed = driven.state.current.merges[0].parts[0].agreed
    assert agreed is not None
    assert agreed.left_out[first.hotkey] is LeftOut.UNREADABLE


async def test_a_store_that_is_away_is_waited_for_and_the_status_says_so(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with embedded(tmp_path) as store:
        driven, _ = await disputed(store)
        away = EmbeddedStore("http://127.0.0.1:9", SECRET)
        async with remerging(driven.coordinator, away, journal, driven.now):
            await asyncio.sleep(0.2)
            assert driven.coordinator.disputed_parts()
            assert "itself" in str(driven.coordinator.status()["waiting"])
        await away.close()
        async with remerging(driven.coordinator, store, journal, driven.now) as applied:
            await asyncio.wait_for(applied.wait(), 20)
    assert len(journal.records) == 1
