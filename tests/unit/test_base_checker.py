"""The orchestrator reads a base before it records that it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from blake3 import blake3

from iota.objects import BaseKey
from iota.outer.base import base_digest, base_parts, initial_base
from iota.protocol.events import BaseAssign
from iota.protocol.frames import StoredObject
from iota.protocol.messages import BaseStored, Ready
from orchestrator.coordinator import Exchanged
from orchestrator.coordinator.member import Member
from orchestrator.http.base_checker import BaseChecker
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder
from tests.support.coordinators import Driven
from tests.support.journals import MemoryJournal
from tests.support.memory_store import MemoryStore
from tests.support.orchestrators import SECRET, node, orchestrator, until
from tests.support.workers import OWNER, RIVAL
from tests.unit.test_coordinator_collusion import merging


def agreed() -> Driven:
    """A run whose stage 0 has agreed on a base, which one of two replicas is asked to store."""
    driven = merging(OWNER, RIVAL)
    driven.draw_mergers()
    driven.merge_all()
    digest = base_digest(driven.state.spec, initial_base(driven.state.spec, 0))
    for member in driven.state.miners(0):
        driven.say(member, reports=[Ready(epoch=1, digest=digest)])
    return driven


def keeper(driven: Driven) -> Member:
    return driven.state.members[driven.state.bases.keepers[1, 0]]


def store_base(driven: Driven, store: MemoryStore, lie: bytes | None = None) -> Exchanged:
    """The keeper's report of a base that it has stored; of the last part it has stored `lie` instead."""
    spec, me = driven.state.spec, keeper(driven).hotkey
    found = []
    for number, data in enumerate(base_parts(spec, initial_base(spec, 0))):
        key = str(BaseKey(spec.id, 1, 0, number, me))
        store.objects[key] = data
        found.append(StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data)))
    if lie is not None:
        store.objects[found[-1].key] = lie.ljust(found[-1].size, b"\0")
    base = BaseStored(epoch=1, digest=driven.state.bases.digests[1, 0], parts=tuple(found))
    return Exchanged(at=driven.now, hotkey=me, reports=(base,))


@asynccontextmanager
async def checking(
    driven: Driven, store: MemoryStore, metrics: Metrics | None = None
) -> AsyncIterator[BaseChecker]:
    """The orchestrator at work."""
    metrics = metrics or Metrics()
    recorder = Recorder(MemoryJournal(), driven.coordinator, metrics, lambda: driven.now)
    checker = BaseChecker(driven.coordinator, recorder, store, metrics, scale=0.01)
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(recorder.run()), tasks.create_task(checker.run())]
        yield checker
        for task in own:
            task.cancel()


async def test_a_base_is_recorded_once_its_bytes_have_the_digest_that_was_agreed_on() -> None:
    driven, store = agreed(), MemoryStore("http://store", SECRET)
    async with checking(driven, store) as checker:
        assert checker.keep_back(store_base(driven, store)) is None
        assert (1, 0) not in driven.state.bases.stored
        await until(lambda: (1, 0) in driven.state.bases.stored)


async def test_a_base_whose_bytes_are_others_is_not_recorded_and_the_next_replica_stores_it() -> None:
    driven, store = agreed(), MemoryStore("http://store", SECRET)
    async with checking(driven, store) as checker:
        liar = keeper(driven)
        checker.keep_back(store_base(driven, store, lie=b"garbage"))
        driven.wait(driven.state.deadlines.merge.seconds + 1)
        assert keeper(driven) is not liar
        checker.keep_back(store_base(driven, store))
        await until(lambda: (1, 0) in driven.state.bases.stored)
    key = driven.state.bases.stored[1, 0].parts[0].key
    assert liar.hotkey not in key


async def test_a_base_is_checked_once_a_store_that_was_away_is_back() -> None:
    driven, store, metrics = agreed(), MemoryStore("http://store", SECRET), Metrics()
    async with checking(driven, store, metrics) as checker:
        said = store_base(driven, store)
        store.away = True
        checker.keep_back(said)
        await until(lambda: b'{what="store"} 1' in metrics.render({}))
        store.away = False
        await until(lambda: (1, 0) in driven.state.bases.stored)


async def test_a_keeper_that_needs_longer_than_the_deadline_is_not_shut_out() -> None:
    driven, store = agreed(), MemoryStore("http://store", SECRET)
    slow = store_base(driven, store)
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert keeper(driven).hotkey != slow.hotkey
    async with checking(driven, store) as checker:
        checker.keep_back(slow)
        await until(lambda: (1, 0) in driven.state.bases.stored)


async def test_a_server_records_a_base_that_a_node_has_stored(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "journal") as running, node(running, b"a") as one:
        spec, stage, store = running.spec, one.reply.stage, running.store
        base = initial_base(spec, stage)
        one.hold_base()
        await until(lambda: bool(one.events(BaseAssign)))
        parts = []
        for number, data in enumerate(base_parts(spec, base)):
            key = str(BaseKey(spec.id, 0, stage, number, one.hotkey.ss58))
            await store.put(key, data)
            parts.append(StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data)))
        one.talk.send(reports=[BaseStored(epoch=0, digest=base_digest(spec, base), parts=tuple(parts))])
        await until(lambda: running.coordinator.stored_base(0, stage) is not None)
