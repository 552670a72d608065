"""Audits of lives that began with their own start, in runs with overlap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iota.compute.determinism import device_class
from iota.objects import DeltaKey
from iota.outer.own_start import own_start
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.spec import OuterCodec
from tests.support.audit_benches import Bench, Open, opened
from tests.support.audited_miners import Honest
from tests.support.audited_runs import DEVICE, THREADS
from tests.support.bundles import Desk, members
from tests.support.overlapping_runs import (
    HidesNoise,
    KeepsNothing,
    NudgedStart,
    OtherRest,
    OverlappingWorld,
    SaysItsOwn,
    overlapping_world,
)
from validator.audits.replay import ReplayOptions
from validator.bundles.outside import Outside
from validator.bundles.repeat import repeat
from validator.core.all_receipts import check_receipts
from validator.core.audit import started_with
from validator.core.results import Result
from validator.core.sealed import SealedEpoch

LIAR = 1
OTHER = device_class("cpu", 999)
"""A device class that this machine has not."""
NEITHER = "it began neither with the base nor with that after what it contributed to the last merge"


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with opened() as make:
        yield make


@cache
def honest(codec: OuterCodec = OuterCodec.NONE, device: str = DEVICE) -> OverlappingWorld:
    return overlapping_world(epochs=2, device=device, outer={"codec": codec})


async def _op(bench: Bench, stage: int = LIAR) -> Result:
    """The audit of the first op that used what the epoch began with."""
    kind = OpKind.LOSS if stage == bench.world.spec.last_stage else OpKind.FORWARD
    return await bench.audit(stage, AuditKind.OP, seq=bench.op(stage, kind, 0).seq)


async def _all(bench: Bench, stage: int = LIAR) -> set[Outcome]:
    """The outcomes of an op and of both segments."""
    found = {(await _op(bench, stage)).outcome}
    return found | {(await bench.audit(stage, AuditKind.SEGMENT, step=step)).outcome for step in (0, 2)}


def _liar(bench: Bench) -> str:
    return bench.world.miners[LIAR].hotkey


@pytest.mark.parametrize("codec", OuterCodec)
@pytest.mark.parametrize("device", [DEVICE, OTHER])
async def test_an_honest_life_passes_from_its_own_start_on(
    codec: OuterCodec, device: str, open_bench: Open
) -> None:
    bench = await open_bench(honest(codec, device), 1)
    assert not bench.sealed.faults
    for stage in range(3):
        hotkey = bench.world.miners[stage].hotkey
        assert started_with(bench.sealed, hotkey, bench.sealed.last_life(hotkey)).own is not None
        assert await _all(bench, stage) == {Outcome.PASS}


async def test_later_epochs_and_rounded_weights_pass_too(open_bench: Open) -> None:
    changes: dict[str, Any] = {"outer": {"codec": "sparse"}, "precision": "bf16-sr"}
    world = overlapping_world(epochs=3, **changes)
    bench = await open_bench(world, 2)
    assert await _all(bench) == {Outcome.PASS}


async def test_the_first_epoch_begins_with_the_base(open_bench: Open) -> None:
    bench = await open_bench(overlapping_world(epochs=1), 0)
    assert started_with(bench.sealed, _liar(bench), bench.sealed.last_life(_liar(bench))).own is None
    assert await _all(bench) == {Outcome.PASS}


@pytest.mark.parametrize("way", [HidesNoise, NudgedStart], ids=["noise contributed", "one weight nudged"])
async def test_who_begins_with_another_start_than_its_contribution_gives_fails_every_audit(
    way: type[Honest], open_bench: Open
) -> None:
    """It trains honestly from there, so that nothing but its start is false."""
    bench = await open_bench(overlapping_world({LIAR: way()}), 1)
    result = await _op(bench)
    assert (result.outcome, result.reason) == (Outcome.FAIL, NEITHER)
    assert result.seq == bench.sealed.commits(_liar(bench), bench.sealed.last_life(_liar(bench)))[0].seq
    assert await _all(bench) == {Outcome.FAIL}
    assert await _all(bench, 0) == {Outcome.PASS}


async def test_noise_that_was_contributed_fails_in_its_own_epoch_too(open_bench: Open) -> None:
    bench = await open_bench(overlapping_world({LIAR: HidesNoise()}, epochs=1), 0)
    result = await bench.audit(LIAR, AuditKind.SEGMENT, step=2)
    assert result.outcome is Outcome.FAIL
    assert "pseudo-gradient is not that of the weights" in result.reason


async def test_who_says_that_it_began_with_its_own_start_and_computes_with_the_anchor_fails(
    open_bench: Open,
) -> None:
    bench = await open_bench(overlapping_world({LIAR: SaysItsOwn()}), 1)
    result = await _op(bench)
    assert result.outcome is Outcome.FAIL
    assert result.reason != NEITHER
    assert (await bench.audit(LIAR, AuditKind.SEGMENT, step=0)).outcome is Outcome.FAIL


async def test_who_begins_with_the_anchor_and_says_so_passes_as_who_lost_its_disk(open_bench: Open) -> None:
    bench = await open_bench(overlapping_world({LIAR: KeepsNothing()}), 1)
    assert bench.sealed.last_life(_liar(bench)).began
    assert started_with(bench.sealed, _liar(bench), bench.sealed.last_life(_liar(bench))).own is None
    assert await _all(bench) == {Outcome.PASS}


async def test_another_rest_of_the_base_than_its_own_fails(open_bench: Open) -> None:
    bench = await open_bench(overlapping_world({LIAR: OtherRest()}), 1)
    result = await _op(bench)
    assert result.outcome is Outcome.FAIL
    assert "another rest of the base" in result.reason


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "other bytes"])
async def test_a_contribution_that_the_store_lost_or_changed_is_nobodys_fault_and_shows_nothing(
    lost: bool, open_bench: Open
) -> None:
    """An epoch with an op that is not shown is not paid, so that no cheat gains by it."""
    world = overlapping_world({LIAR: NudgedStart()})
    key = str(DeltaKey(world.run, 0, LIAR, world.miners[LIAR].hotkey, 0))
    if lost:
        del world.store[key]
    else:
        world.store[key] = bytes(len(world.store[key]))
    bench = await open_bench(world, 1)
    assert await _all(bench) == {Outcome.UNSHOWN}
    assert await _all(bench, 0) == {Outcome.PASS}


async def test_the_base_of_which_own_starts_are_made_is_the_anchor(open_bench: Open) -> None:
    world = honest()
    bench = await open_bench(world, 1)
    hotkey = _liar(bench)
    base = started_with(bench.sealed, hotkey, bench.sealed.last_life(hotkey))
    assert base.epoch == 0
    state = await bench.evidence.start(base)
    made = np.concatenate([w.numpy().reshape(-1) for _, w in sorted(state.weights.items())])
    given = own_start(world.spec, 1, world.anchor(1, LIAR), world.contribution(0, world.miners[LIAR]))
    assert np.array_equal(made, given)


# ---- lives that count for nothing --------------------------------------------------------------------


def _changed(bench: Bench, again: bool = True, **life: Any) -> SealedEpoch:
    """The epoch as it would be with another first life of the liar, and if `again` one after it."""
    sealed, hotkey = bench.sealed, _liar(bench)
    record = sealed.record
    miners = []
    for miner in record.miners:
        if miner.hotkey == hotkey:
            first = miner.lives[0].model_copy(update=life)
            later = first.model_copy(
                update={"void": False, "began": (), "joined": 3, "first_receipt": miner.last_receipt + 1}
            )
            miner = miner.model_copy(update={"lives": (first, later) if again else (first,)})
        miners.append(miner)
    changed = record.model_copy(update={"miners": tuple(miners), "deltas": ()})
    plans = [sealed._plans[plan.step] for plan in record.plans]
    merges = tuple(each.model_copy(update={"parts": ()}) for each in record.merges)
    changed = changed.model_copy(update={"merges": merges, "merge_assigns": ()})
    return SealedEpoch(sealed.spec, changed, plans, sealed.receipts)


async def test_nothing_of_a_void_life_is_audited_paid_or_held_against_its_miner(open_bench: Open) -> None:
    bench = await open_bench(overlapping_world({LIAR: NudgedStart()}), 1)
    hotkey = _liar(bench)
    counts = _changed(bench, void=False, began=())
    assert [fault.hotkey for fault in check_receipts(counts)] == [hotkey]  # it began without the base
    void = _changed(bench, void=True, began=())
    assert check_receipts(void) == []
    assert counts.auditable(hotkey)
    assert not void.auditable(hotkey)
    assert not void.paid(hotkey)
    assert not void.segments(hotkey)
    alone = _changed(bench, again=False, void=True, began=())
    assert not alone.segments(hotkey)
    assert not alone.has_stepped(hotkey)
    assert not alone.paid(hotkey)


async def test_what_a_life_began_with_and_never_said_is_not_paid(open_bench: Open) -> None:
    """Else a miner would be replayed from the one where it began with the other."""
    bench = await open_bench(honest(), 1)
    hotkey, sealed = _liar(bench), bench.sealed
    assert sealed.paid(hotkey)
    life = sealed.last_life(hotkey)
    sealed._commits[hotkey] = {life: {}}
    assert not sealed.knows_start(hotkey, life)
    assert not sealed.paid(hotkey)
    assert not sealed.auditable(hotkey)


# ---- bundles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AuditKind.OP, AuditKind.SEGMENT])
async def test_a_bundle_holds_the_contribution_and_says_which_record_it_takes_on_trust(
    kind: AuditKind, tmp_path: Path
) -> None:
    world = overlapping_world({LIAR: HidesNoise()})
    desk = await Desk.over(world, tmp_path, epoch=1)
    path = await desk.accuse(LIAR, kind)
    assert any(f"/delta/0/{LIAR}/" in name for name in members(path))
    found = await repeat(path, ReplayOptions(threads=THREADS, max_threads=THREADS), Outside())
    assert found.faults == []
    assert found.confirmed
    assert found.result is not None
    assert found.result.reason == NEITHER
    assert any("the record of epoch 0" in assumed for assumed in found.assumed)
