"""The orchestrator makes a disputed base itself, from the store or the seed, and journals its digest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from iota.objects import BaseKey, MergedKey, part_sizes
from iota.outer.base import base_digest, base_parts, initial_base
from iota.outer.base_values import next_base
from iota.outer.partition import Vector, part_bytes, split
from iota.protocol.events import BaseAssign, LoadBase
from iota.protocol.frames import StoredObject
from iota.protocol.messages import Ready
from iota.protocol.records import BaseRecord
from orchestrator.coordinator import BaseInputs, BaseMade, Coordinator
from orchestrator.http.base_maker import BaseMaker
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder
from tests.support.journals import MemoryJournal
from tests.support.memory_store import MemoryStore
from tests.support.orchestrators import SECRET, make_spec, node, orchestrator, until

SPEC = make_spec()
START = initial_base(SPEC, 0)
MERGED: Vector = np.full(sum(part_sizes(SPEC, 0)), 1e-3, np.float32)


def put(store: MemoryStore, key: object, data: bytes) -> StoredObject:
    store.objects[str(key)] = data
    return StoredObject(key=str(key), digest=blake3(data).hexdigest(), size=len(data))


def merged(store: MemoryStore, epoch: int) -> tuple[StoredObject, ...]:
    parts = map(part_bytes, split(MERGED, SPEC.outer.part_elements))
    return tuple(put(store, MergedKey(SPEC.id, epoch, 0, n, "x"), data) for n, data in enumerate(parts))


async def made(monkeypatch: pytest.MonkeyPatch, store: MemoryStore, inputs: BaseInputs) -> str:
    """The digest that the orchestrator journals, without parts."""
    entry = await entry_of(monkeypatch, store, inputs)
    assert not entry.parts
    return entry.digest


async def entry_of(monkeypatch: pytest.MonkeyPatch, store: MemoryStore, inputs: BaseInputs) -> BaseMade:
    """What the orchestrator journals."""
    coordinator, journal = Coordinator(SPEC), MemoryJournal()
    disputed = [inputs]
    monkeypatch.setattr(coordinator, "disputed_bases", lambda: list(disputed))
    recorder = Recorder(journal, coordinator, Metrics())
    maker = BaseMaker(coordinator, recorder, store, Metrics(), scale=0.01)
    recorder.after += [disputed.clear, maker.wake]
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(recorder.run()), tasks.create_task(maker.run())]
        await until(lambda: bool(journal.records))
        for task in own:
            task.cancel()
    (entry,) = (record.entry for record in journal.records)
    assert isinstance(entry, BaseMade)
    assert (entry.epoch, entry.stage) == (inputs.epoch, inputs.stage)
    return entry


async def test_base_0_is_made_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore("http://store", SECRET)
    assert await made(monkeypatch, store, BaseInputs(0, 0, None)) == base_digest(SPEC, START)


async def test_a_server_takes_no_false_base_0_of_the_only_replica(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "journal") as running, node(running, b"a") as one:
        true = base_digest(running.spec, initial_base(running.spec, one.reply.stage))
        one.talk.send(reports=[Ready(epoch=0, digest="0" * 64)])
        await until(lambda: any(event.digest == true for event in one.events(LoadBase)))
        one.hold_base()
        await until(lambda: bool(one.events(BaseAssign)))


async def test_the_first_base_is_made_from_the_seed_and_the_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore("http://store", SECRET)
    found = await made(monkeypatch, store, BaseInputs(1, 0, None, merged(store, 0)))
    assert found == base_digest(SPEC, next_base(SPEC, 0, START, MERGED))


async def test_a_later_base_is_made_from_the_stored_one_and_the_merge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore("http://store", SECRET)
    base = next_base(SPEC, 0, START, MERGED)
    parts = tuple(
        put(store, BaseKey(SPEC.id, 1, 0, n), part) for n, part in enumerate(base_parts(SPEC, base))
    )
    record = BaseRecord(epoch=1, stage=0, digest=base_digest(SPEC, base), parts=parts)
    found = await made(monkeypatch, store, BaseInputs(2, 0, record, merged(store, 1)))
    assert found == base_digest(SPEC, next_base(SPEC, 1, base, MERGED))


async def test_a_stage_without_a_merge_keeps_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore("http://store", SECRET)
    assert await made(monkeypatch, store, BaseInputs(1, 0, None)) == base_digest(SPEC, START)


async def test_a_base_that_no_replica_stores_is_stored_as_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore("http://store", SECRET)
    inputs = BaseInputs(1, 0, None, merged(store, 0), store=True)
    entry = await entry_of(monkeypatch, store, inputs)
    base = next_base(SPEC, 0, START, MERGED)
    assert entry.digest == base_digest(SPEC, base)
    assert [store.objects[part.key] for part in entry.parts] == base_parts(SPEC, base)
    assert [part.key for part in entry.parts] == [
        str(BaseKey(SPEC.id, 1, 0, number)) for number in range(len(entry.parts))
    ]
    assert all(blake3(store.objects[part.key]).hexdigest() == part.digest for part in entry.parts)
