"""Merges and bases are made again by validators, from public objects alone, and liars are named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blake3 import blake3

import iota.outer.merge
from iota.objects import SettledKey
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.protocol.records import LeftOutRecord
from iota.spec import AuditSpec
from tests.support import audit_benches as benches
from tests.support import audited_miners as miners
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from validator.core.draw import choose_parts
from validator.core.merges import MAX_CONTESTED, MergeAudits
from validator.core.results import Result
from validator.core.sealed import SealBroken
from validator.core.tasks import MERGE_AUDITS, AuditTask

HASH, LINK = "cd" * 32, "ab" * 32
EVERY_PART = AuditSpec(merge_every=1)
Filed = dict[tuple[str, str], Result]
"""(hotkey, task) -> result."""


def trained(ways: dict[int, miners.Honest] | None = None, epochs: int = 1, **changes: object) -> World:
    spec = small_run(audit=EVERY_PART, schedule={"steps": 2, "microbatches": 2}, **changes)
    world = World(spec, ways)
    for epoch in range(epochs):
        world.train(epoch)
    return world


@pytest.fixture
def workers() -> Iterator[list[benches.Bench]]:
    opened: list[benches.Bench] = []
    yield opened
    for each in opened:
        each.worker.close()


async def audited(
    world: World, workers: list[benches.Bench], epoch: int = 0, *, base: bool = False
) -> tuple[Filed, list[str]]:
    """What a validator files about the merges of an epoch, or its next base, and what it warns of."""
    bench = await benches.bench(world, epoch)
    workers.append(bench)
    filed: Filed = {}
    warned: list[str] = []

    def file(hotkey: str, task: AuditTask, result: Result) -> None:
        assert task.kind in MERGE_AUDITS
        filed[hotkey, task.name] = result

    audits = MergeAudits(bench.sealed, HASH, LINK, file, warned.append)
    await bench.run(audits.check_base() if base else audits.run())  # type: ignore[arg-type]
    return filed, warned


def failed(filed: Filed) -> set[str]:
    return {hotkey for (hotkey, _), result in filed.items() if result.outcome is Outcome.FAIL}


def outcomes(filed: Filed) -> set[Outcome]:
    return {result.outcome for result in filed.values()}


async def test_honest_merges_pass_to_the_bit(workers: list[benches.Bench]) -> None:
    world = trained(epochs=2)
    for epoch in range(2):
        filed, warned = await audited(world, workers, epoch)
        assert len(filed) == 2 * sum(len(merge.parts) for merge in world.records[epoch].merges)
        assert outcomes(filed) == {Outcome.PASS}
        assert not warned


async def test_two_mergers_that_collude_are_both_caught(workers: list[benches.Bench]) -> None:
    lie = miners.FalseMerge(0)
    world = trained({1: lie, 2: lie})
    filed, warned = await audited(world, workers)
    assert failed(filed) == {world.miners[1].hotkey, world.miners[2].hotkey}
    assert "its mergers made it" in warned[0]


async def test_the_honest_merger_beside_a_liar_passes(workers: list[benches.Bench]) -> None:
    world = trained({2: miners.FalseMerge(0)})
    filed, _ = await audited(world, workers)
    assert failed(filed) == {world.miners[2].hotkey}


async def test_a_merger_that_signed_another_copy_is_judged_without_a_draw(
    workers: list[benches.Bench],
) -> None:
    spec = small_run(audit=AuditSpec(merge_every=1000), schedule={"steps": 2, "microbatches": 2})
    world = World(spec, {2: miners.FalseMerge(0)})
    world.train()
    filed, _ = await audited(world, workers)
    drawn_alone = World(spec)
    drawn_alone.train()
    honest, _ = await audited(drawn_alone, workers)
    assert failed(filed) == {world.miners[2].hotkey}
    assert len(filed) > len(honest) > 0


async def test_a_merger_that_signs_falsely_everywhere_costs_a_bounded_number_of_merges(
    workers: list[benches.Bench],
) -> None:
    spec = small_run(
        audit=AuditSpec(merge_every=1000),
        outer={"part_elements": 1024},
        schedule={"steps": 2, "microbatches": 2},
    )
    world = World(spec, {1: miners.FalseMerge(0)})
    world.train()
    liar, honest = world.miners[1], world.miners[2]
    bench = await benches.bench(world, 0)
    workers.append(bench)
    filed: Filed = {}

    def audits(block_hash: str) -> MergeAudits:
        def file(hotkey: str, task: AuditTask, result: Result) -> None:
            filed[hotkey, task.name] = result

        return MergeAudits(bench.sealed, block_hash, LINK, file, lambda text: None)

    false = [r for r in world.of_epoch(0, liar) if r.kind is OpKind.MERGE and r.stage == 0]
    found = audits(HASH)
    assert len(false) > MAX_CONTESTED + 1
    assert len(found.drawn) == 1
    assert len(found.parts) in (MAX_CONTESTED, MAX_CONTESTED + 1)
    assert found.parts != audits("ef" * 32).parts
    await bench.run(found.run())  # type: ignore[arg-type]
    assert failed(filed) == {liar.hotkey}
    # What another validator names is examined all the same, of the liar and of others.
    for merger, outcome in ((liar, Outcome.FAIL), (honest, Outcome.PASS)):
        own = [r for r in world.of_epoch(0, merger) if r.kind is OpKind.MERGE and r.stage == 0]
        beyond = next(r for r in own if (0, r.microbatch) not in found.parts)
        assert await bench.run(found.examine(merger.hotkey, AuditKind.MERGE, beyond.seq)) is outcome


async def test_mergers_who_had_what_the_orchestrator_found_missing_are_undecided(
    workers: list[benches.Bench],
) -> None:
    world = trained()
    record, gone = world.records[0], world.miners[0].hotkey
    ready = record.merges[0]
    zeros = bytes(ready.parts[0].size)
    digest = blake3(zeros).hexdigest()
    key = str(SettledKey(world.run, 0, 0, 0, digest))
    settled = StoredObject(key=key, digest=digest, size=len(zeros))
    left = LeftOutRecord(miner=gone, stage=0, why=LeftOut.MISSING, parts=(0,))
    merges = (ready.model_copy(update={"parts": (settled, *ready.parts[1:])}), *record.merges[1:])
    world.records[0] = record.model_copy(update={"merges": merges, "left_out": (left,)})
    filed, warned = await audited(world, workers)
    undecided = {h for (h, _), result in filed.items() if result.outcome is Outcome.INCONCLUSIVE}
    assert undecided == {world.miners[1].hotkey, world.miners[2].hotkey}
    assert not failed(filed)
    assert not warned


@pytest.mark.parametrize("why", [LeftOut.NOT_FINITE, LeftOut.OPPOSED, LeftOut.MISSING])
async def test_an_honest_miner_that_two_mergers_accuse_is_not_charged_and_they_are(
    workers: list[benches.Bench], why: LeftOut
) -> None:
    accused = World(small_run()).miners[0].hotkey
    lie = miners.Accuses(0, accused, why)
    world = trained({1: lie, 2: lie})
    assert world.records[0].left_out[0].miner == accused
    filed, _ = await audited(world, workers)
    assert failed(filed) == {world.miners[1].hotkey, world.miners[2].hotkey}


async def test_who_goes_against_the_others_is_left_out_and_nobody_fails_for_it(
    workers: list[benches.Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = World(small_run()).miners[0].hotkey
    monkeypatch.setattr(iota.outer.merge, "opposed", lambda codec, samples, tokens: {odd} & samples.keys())
    world = trained()
    assert {(left.miner, left.why) for left in world.records[0].left_out} == {(odd, LeftOut.OPPOSED)}
    filed, warned = await audited(world, workers)
    assert outcomes(filed) == {Outcome.PASS}
    assert not warned


async def test_an_honest_merger_beside_one_that_says_missing_passes(workers: list[benches.Bench]) -> None:
    victim = World(small_run()).miners[0].hotkey
    world = trained({2: miners.Accuses(0, victim, LeftOut.MISSING)})
    filed, _ = await audited(world, workers)
    assert failed(filed) == {world.miners[2].hotkey}


@pytest.mark.parametrize(
    ("factor", "why"),
    [(float("nan"), LeftOut.NOT_FINITE), (1e30, LeftOut.OUT_OF_BOUNDS), (-100.0, LeftOut.OUT_OF_BOUNDS)],
)
async def test_a_poisoned_pseudo_gradient_fails_its_maker_without_a_draw(
    workers: list[benches.Bench], factor: float, why: LeftOut
) -> None:
    world = trained({0: miners.PoisonedDelta(factor)})
    assert {record.why for record in world.records[0].left_out} == {why}
    filed, _ = await audited(world, workers)
    assert failed(filed) == {world.miners[0].hotkey}
    assert outcomes(filed) == {Outcome.FAIL, Outcome.PASS}


async def test_a_contribution_whose_bytes_are_others_than_announced_fails_its_maker(
    workers: list[benches.Bench],
) -> None:
    world = trained()
    record = world.records[0]
    changed = record.merge_assigns[0].contributions[0].stored
    world.store[changed.key] = b"\x01" + world.store[changed.key][1:]
    left = LeftOutRecord(miner=world.miners[0].hotkey, stage=0, why=LeftOut.UNREADABLE, parts=(0,))
    world.records[0] = record.model_copy(update={"left_out": (left,)})
    filed, _ = await audited(world, workers)
    assert filed[world.miners[0].hotkey, "delta:0"].outcome is Outcome.FAIL


async def test_what_the_store_lost_is_nobodys_fault(workers: list[benches.Bench]) -> None:
    world = trained()
    for assign in world.records[0].merge_assigns:
        del world.store[assign.contributions[0].stored.key]
    filed, warned = await audited(world, workers)
    assert outcomes(filed) == {Outcome.INCONCLUSIVE}
    assert not warned


async def test_a_false_part_of_the_orchestrators_is_named_as_its_own(workers: list[benches.Bench]) -> None:
    world = trained()
    record = world.records[0]
    ready = record.merges[0]
    key = str(SettledKey(world.run, 0, 0, 0, "1" * 64))
    false = ready.parts[0].model_copy(update={"key": key, "digest": "1" * 64})
    merges = (ready.model_copy(update={"parts": (false, *ready.parts[1:])}), *record.merges[1:])
    world.records[0] = record.model_copy(update={"merges": merges})
    filed, warned = await audited(world, workers)
    assert not failed(filed)
    assert "the orchestrator made it" in warned[0]


@pytest.mark.parametrize(
    "outer", [{"part_elements": 4096}, {"eta": 0.7, "momentum": 0.9, "part_elements": 4096}]
)
async def test_the_next_base_is_what_base_and_merge_give(
    workers: list[benches.Bench], outer: dict[str, float]
) -> None:
    world = trained(epochs=2, outer=outer)
    for epoch in range(2):
        filed, warned = await audited(world, workers, epoch, base=True)
        assert outcomes(filed) == {Outcome.PASS}
        assert not warned


async def test_a_replica_that_makes_another_base_is_named_alone(workers: list[benches.Bench]) -> None:
    world = trained(dict.fromkeys(range(3), miners.FalseBase()))
    filed, warned = await audited(world, workers, base=True)
    assert len(filed) == 1
    ((maker, task),) = filed
    stage = int(task.removeprefix("base:"))
    assert failed(filed) == {maker} == {world.miners[stage].hotkey}
    assert warned


def test_one_in_so_many_parts_is_drawn_and_at_least_one() -> None:
    parts = [(stage, part) for stage in range(16) for part in range(100)]
    drawn = choose_parts(b"\x01" * 32, 200, parts)
    assert len(drawn) == len(set(drawn)) == 8
    assert len(choose_parts(b"\x01" * 32, 200, parts[:3])) == 1
    assert choose_parts(b"\x01" * 32, 200, []) == []
    assert len({tuple(choose_parts(bytes([n]) * 32, 200, parts)) for n in range(50)}) == 50


@pytest.mark.parametrize("what", ["merges", "merge_assigns"])
async def test_a_record_that_leaves_merges_out_is_no_record(what: str, workers: list[benches.Bench]) -> None:
    world = trained()
    record = world.records[0]
    world.records[0] = record.model_copy(update={what: getattr(record, what)[:-1]})
    with pytest.raises(SealBroken, match="merges"):
        await audited(world, workers)


async def test_a_record_with_a_contribution_beyond_its_size_is_no_record(
    workers: list[benches.Bench],
) -> None:
    world = trained()
    record = world.records[0]
    first = record.merge_assigns[0]
    given = first.contributions[0]
    huge = given.model_copy(update={"stored": given.stored.model_copy(update={"size": 1 << 40})})
    assigns = (first.model_copy(update={"contributions": (huge,)}), *record.merge_assigns[1:])
    world.records[0] = record.model_copy(update={"merge_assigns": assigns})
    with pytest.raises(SealBroken, match="cannot be"):
        await audited(world, workers)
