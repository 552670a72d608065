"""What a validator takes for the plans of a sealed epoch: its record's, its steps', and the spec's."""

from __future__ import annotations

from typing import Any

import pytest
from blake3 import blake3

from iota.objects import PlanKey, max_plan_bytes
from iota.protocol.plans import WholePlan
from iota.protocol.records import EpochRecord, PlanRecord
from iota.simulate.names import fake_hotkey
from iota.store import ObjectMissing
from tests.support.audit_benches import bench
from tests.support.audited_runs import World
from tests.support.plans import whole_plan
from tests.support.small_runs import small_run
from validator.core.jobs import Base
from validator.core.sealed import SealBroken


@pytest.fixture(scope="module")
def trained() -> World:
    """One epoch, in which all is right."""
    world = World(small_run())
    world.train()
    return world


@pytest.fixture
def world(trained: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, which a test may change."""
    monkeypatch.setattr(trained, "store", dict(trained.store))
    monkeypatch.setattr(trained, "records", dict(trained.records))
    return trained


def key_of(world: World, step: int = 0) -> str:
    return str(PlanKey(world.run, 0, step, world.records[0].plans[step].root))


def plan_with(world: World, **changes: Any) -> WholePlan:
    """The plan of step 0 as another one of it."""
    return world.plans[0][0].model_copy(update=changes)


def named(world: World, *plans: PlanRecord) -> EpochRecord:
    """The record, with other plans."""
    world.records[0] = world.records[0].model_copy(update={"plans": plans})
    return world.records[0]


async def refused(world: World, why: str) -> None:
    with pytest.raises(SealBroken, match=why):
        await bench(world)


async def test_the_plans_of_an_honest_epoch_say_whose_each_op_was(world: World) -> None:
    sealed = (await bench(world)).sealed
    for miner in world.miners:
        for step in range(world.spec.schedule.steps):
            assert sealed.owner(step, 0, 0, miner.stage) == miner.hotkey
            assert sealed.learning_rate(step) == world.spec.learning_rate(0, step)


async def test_another_plan_under_the_roots_name_is_refused(world: World) -> None:
    false = whole_plan(
        [*(miner.hotkey for miner in world.miners[:-1]), fake_hotkey(1)],
        world.spec.schedule.microbatches,
        learning_rate=world.spec.learning_rate(0, 0),
    )
    world.store[key_of(world)] = false.model_dump_json().encode()
    await refused(world, "not those of its record")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"epoch": 1}, "is the plan of epoch 1 step 0"),
        ({"step": 1}, "is the plan of epoch 0 step 1"),
        ({"learning_rate": 0.0}, "a learning rate that the spec forbids"),
        ({"learning_rate": 1.0}, "a learning rate that the spec forbids"),
    ],
    ids=str,
)
async def test_a_plan_of_another_step_or_learning_rate_is_refused_under_its_own_root(
    world: World, changes: dict[str, Any], why: str
) -> None:
    false = plan_with(world, **changes)
    root = false.root()
    world.store[str(PlanKey(world.run, 0, 0, root))] = false.model_dump_json().encode()
    named(world, PlanRecord(step=0, root=root), *world.records[0].plans[1:])
    await refused(world, why)


async def test_a_plan_with_less_than_the_specs_microbatches_or_stages_is_refused(world: World) -> None:
    true, others = world.plans[0][0], world.records[0].plans[1:]
    fewer = plan_with(world, routes=true.routes[:-1])
    named(world, world.store_plan(0, fewer), *others)
    await refused(world, f"has {len(fewer.routes)} microbatch")
    shorter = whole_plan([world.miners[0].hotkey], len(true.routes), learning_rate=true.learning_rate)
    named(world, world.store_plan(0, shorter), *others)
    await refused(world, "at 1 stage$")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 3000,
        b'{"epoch":0,"step":0,"learning_rate":NaN,"members":[],"routes":[]}',
        b'{"epoch":0,"step":0,"learning_rate":0.1,"members":[],"routes":[[0,1]]}',
        b'{"epoch":0,"step":0,"learning_rate":0.1,"members":[],"routes":[[],[]]}',
        b'{"epoch":0,"step":0,"learning_rate":0.1,"members":[],"routes":[],"more":1}',
    ],
    ids=range(8),
)
async def test_an_object_that_is_no_plan_is_refused(world: World, data: bytes) -> None:
    world.store[key_of(world)] = data
    await refused(world, "is no plan")


async def test_a_plan_beyond_its_bound_is_refused_though_it_is_the_records(world: World) -> None:
    world.store[key_of(world)] += b" " * max_plan_bytes(world.spec)
    await refused(world, "is no plan: .* bytes")


async def test_a_record_without_one_plan_for_each_step_is_refused(world: World) -> None:
    plans = world.records[0].plans
    for others in (plans[:-1], plans[::-1], (*plans, plans[-1]), ()):
        named(world, *others)
        world.store.clear()  # none of them is fetched: there may be very many
        await refused(world, "not one plan for each step")


async def test_a_plan_that_the_store_lacks_is_nobodys_fault(world: World) -> None:
    del world.store[key_of(world, step=1)]
    with pytest.raises(ObjectMissing):
        await bench(world)


async def test_a_record_that_was_changed_after_the_seal_is_refused(world: World) -> None:
    seal = world.seal_of(0)
    evidence = (await bench(world)).evidence
    world.records[0] = world.records[0].model_copy(update={"counted": world.records[0].counted[1:]})
    with pytest.raises(SealBroken, match="is not the one that was sealed"):
        await evidence.record(seal)


async def test_what_was_sealed_and_contradicts_its_seal_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence, true = (await bench(world)).evidence, world.seal_of(0)
    for change in ({"root": "2" * 64}, {"receipts": 1}, {"members": "3" * 64}, {"epoch": 1}):
        world.records[1] = world.records[0]
        with pytest.raises(SealBroken, match="contradicts the seal"):
            await evidence.record(true.model_copy(update=change))

    async def no_record(epoch: int) -> bytes:
        return b"{}"

    monkeypatch.setattr(world, "record", no_record)
    with pytest.raises(SealBroken, match="no record"):
        await evidence.record(true.model_copy(update={"record": blake3(b"{}").hexdigest()}))


async def test_a_false_count_is_the_orchestrators_fault_and_no_miners(world: World) -> None:
    first, *others = world.records[0].counted
    fewer = first.model_copy(update={"counted": first.counted[1:]})
    world.records[0] = world.records[0].model_copy(update={"counted": (fewer, *others)})
    await refused(world, f"the orchestrator took receipt .* of {first.miner}, a STEP with another")


async def test_a_base_that_was_not_stored_at_the_seal_is_found_by_its_digest(world: World) -> None:
    bases = tuple(base.model_copy(update={"parts": ()}) for base in world.records[0].bases)
    world.records[0] = world.records[0].model_copy(update={"bases": bases})
    opened = await bench(world)
    assert opened.sealed.base(0) is not None
    await opened.evidence.base(Base(0, 0, opened.sealed.base(0)))
