"""Whose worker a miner of a sealed epoch is: the validator checks the certificate itself."""

from __future__ import annotations

from typing import Any

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.workers import Certificate
from tests.support.audit_benches import bench
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from tests.support.workers import OWNER, RIVAL, certificate
from validator.core.sealed import SealBroken
from validator.core.tasks import epoch_work


@pytest.fixture(scope="module")
def trained() -> World:
    world = World(small_run())
    world.train()
    return world


@pytest.fixture
def world(trained: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """One epoch, whose record a test may change."""
    monkeypatch.setattr(trained, "records", dict(trained.records))
    return trained


def named(world: World, **changes: Any) -> Hotkey:
    """Change the record of the first miner, whose key is returned."""
    record, key = world.records[0], world.miners[0].key
    miners = tuple(
        miner.model_copy(update=changes) if miner.hotkey == key.ss58 else miner for miner in record.miners
    )
    world.records[0] = record.model_copy(update={"miners": miners})
    return key


def own(world: World, run: str | None = None, owner: Hotkey = OWNER) -> Certificate:
    return certificate(run or world.run, world.miners[0].key, owner)


async def test_a_certified_worker_has_its_owner_and_others_their_own_hotkey(world: World) -> None:
    worker = named(world, owner=OWNER.ss58, certificate=own(world))
    sealed = (await bench(world)).sealed
    others = [miner.hotkey for miner in world.miners[1:]]
    assert sealed.owner_of(worker.ss58) == OWNER.ss58
    assert [sealed.owner_of(hotkey) for hotkey in others] == others


async def test_the_work_of_a_certified_worker_is_its_owners(world: World) -> None:
    worker = named(world, owner=OWNER.ss58, certificate=own(world))
    owners = {work.hotkey: work.owner for work in epoch_work((await bench(world)).sealed)}
    others = {miner.hotkey: miner.hotkey for miner in world.miners[1:]}
    assert owners == {worker.ss58: OWNER.ss58, **others}


async def refused(world: World, why: str, **changes: Any) -> None:
    named(world, **changes)
    with pytest.raises(SealBroken, match=why):
        await bench(world)


async def test_an_owner_without_a_certificate_is_refused(world: World) -> None:
    await refused(world, f"as a worker of {OWNER.ss58} is missing", owner=OWNER.ss58)


async def test_a_certificate_of_another_owner_than_the_named_one_is_refused(world: World) -> None:
    await refused(world, f"is of {RIVAL.ss58}", owner=OWNER.ss58, certificate=own(world, owner=RIVAL))


async def test_a_worker_cannot_be_listed_as_its_own_owner_beside_its_certificate(world: World) -> None:
    await refused(world, f"is of {OWNER.ss58}", certificate=own(world))


async def test_a_certificate_of_another_run_is_refused_in_a_record(world: World) -> None:
    await refused(world, "is of run", owner=OWNER.ss58, certificate=own(world, "ab" * 32))


async def test_the_work_of_a_miner_cannot_be_given_to_an_owner_that_it_does_not_know(world: World) -> None:
    """What an orchestrator and a friend of it can make without the miner's key."""
    claimed = own(world).model_copy(update={"consent": "00" * 64})
    await refused(world, "is not signed by the worker", owner=OWNER.ss58, certificate=claimed)
