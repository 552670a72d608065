"""The orchestrator reads a merged part on which mergers agree, and journals what it found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blake3 import blake3

from iota.objects import MergedKey
from iota.protocol.frames import StoredObject
from iota.protocol.merges import merge_output
from iota.protocol.messages import Merged
from iota.protocol.receipts import OpKind
from orchestrator.coordinator import CopyRead
from orchestrator.http.copy_reader import CopyReader
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder
from tests.support.coordinators import Driven
from tests.support.journals import MemoryJournal
from tests.support.memory_store import MemoryStore
from tests.support.orchestrators import SECRET, STORE, until
from tests.unit.test_merge_disputes import mergers, until_merge


def agreed(store: MemoryStore) -> Driven:
    """Both mergers of each part have stored it and signed one digest; nobody has read it."""
    driven = until_merge()
    driven.give_all()
    driven.draw_mergers()
    for stage in range(driven.state.stages):
        data = bytes(driven.state.part_bytes[stage][0])
        for member in mergers(driven, stage):
            key = str(MergedKey(driven.state.spec.id, 0, stage, 0, member.hotkey))
            store.objects[key] = data
            stored = StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data))
            receipt = driven.receipt(member, OpKind.MERGE, 0, 0).model_copy(
                update={"stage": stage, "output": merge_output(stored.digest, {})}
            )
            report = Merged(epoch=0, stage=stage, part=0, stored=stored, left_out={})
            driven.say(member, receipts=[receipt], reports=[report])
    assert len(driven.coordinator.unread_copies()) == driven.state.stages
    return driven


@asynccontextmanager
async def reading(driven: Driven, store: MemoryStore, metrics: Metrics) -> AsyncIterator[MemoryJournal]:
    """The orchestrator at work, and its journal."""
    journal = MemoryJournal()
    recorder = Recorder(journal, driven.coordinator, metrics, lambda: driven.now)
    reader = CopyReader(driven.coordinator, recorder, store, metrics, scale=0.01)
    recorder.after.append(reader.wake)
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(recorder.run()), tasks.create_task(reader.run())]
        yield journal
        for task in own:
            task.cancel()


async def test_each_part_is_read_once_and_the_merge_is_ready() -> None:
    store = MemoryStore(STORE, SECRET)
    driven = agreed(store)
    async with reading(driven, store, Metrics()) as journal:
        await until(lambda: driven.state.current.unmerged == 0)
    assert [type(record.entry) for record in journal.records] == [CopyRead] * driven.state.stages


async def test_a_copy_is_read_once_a_store_that_was_away_is_back() -> None:
    store, metrics = MemoryStore(STORE, SECRET), Metrics()
    driven = agreed(store)
    store.away = True
    async with reading(driven, store, metrics):
        await until(lambda: b'{what="store"} 1' in metrics.render({}))
        assert "reads part 0 of the merge" in str(driven.coordinator.status()["waiting"])
        store.away = False
        await until(lambda: driven.state.current.unmerged == 0)
    assert not any(member.charged for member in driven.state.miners())
