"""Bases of a replica: made from the seed, taken from the store, continued from disk, advanced by a merge."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iota.client.run_objects import RunObjects
from iota.compute.engine import Engine
from iota.compute.state import load_state
from iota.identity.keys import Hotkey
from iota.objects import BaseKey
from iota.outer.base import base_digest, base_parts, base_roots, initial_base, named_weights
from iota.outer.base_values import BaseRoots, started
from iota.outer.merged_part import write_merged
from iota.outer.nesterov import OuterState
from iota.outer.partition import part_bytes
from iota.outer.pseudo_gradient import flatten
from iota.protocol.frames import StoredObject
from iota.protocol.merkle import EMPTY
from iota.spec import InitSpec, RunSpec
from iota.store import EmbeddedStore, ObjectClient
from miner.activity import Activity
from miner.bases import BaseKeeper
from miner.core.effects import ApplyMerge, FetchBase, LoadState, WriteCommit
from miner.core.facts import BaseHeld, Committed, StateLoaded
from miner.delta_files import DeltaFiles, EpochStart
from miner.device import DeviceThread
from miner.disk import MinerDisk
from miner.op_records import StateLost
from miner.ops import OpRunner
from miner.receipt_log import ReceiptLog
from miner.trainer import Trainer
from tests.support.damage import DAMAGES, Damage
from tests.support.power_cuts import PowerCuts
from tests.support.small_spec import small_spec
from tests.support.store_servers import StoreUrls, embedded

SPEC = small_spec(schedule={"epochs": 2})
FIRST = base_digest(SPEC, initial_base(SPEC, 0))
SEED = FetchBase(0, None, ())


@dataclass
class Bench:
    keeper: BaseKeeper
    trainer: Trainer
    store: EmbeddedStore

    @property
    def disk(self) -> MinerDisk:
        return self.keeper.runner.disk


@asynccontextmanager
async def bench(root: Path, spec: RunSpec = SPEC) -> AsyncIterator[Bench]:
    """A replica of stage 0 with a store."""
    hotkey, device = Hotkey.from_seed(b"m" * 32), DeviceThread()
    async with embedded(root / "store") as store, ObjectClient() as client:
        with MinerDisk(root / "miner") as disk:
            log = ReceiptLog(disk.receipts, spec.id, hotkey)
            runner = OpRunner(spec, 0, hotkey, Engine(spec, 0), log, disk, "cpu", snapshot_bytes=1 << 30)
            samples: Any = None  # nothing is read
            keeper = BaseKeeper(spec, runner, RunObjects(StoreUrls(store), client), device)
            yield Bench(keeper, Trainer(spec, runner, samples, device, Activity()), store)
            runner.close()
            log.close()
    device.close()


async def test_the_first_base_follows_from_the_seed_and_is_on_disk(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        assert await made.keeper.fetch(SEED, {}) == BaseHeld(0, FIRST)
        assert made.disk.newest_base() == 0
        assert await made.keeper.from_disk(0) == BaseHeld(0, FIRST)


async def test_a_base_is_hashed_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """26 GB take seconds, in which heartbeats and frames would wait."""
    loop_ran = threading.Event()

    def hash_while_the_loop_runs(spec: RunSpec, base: OuterState) -> BaseRoots:
        assert loop_ran.wait(10), "the event loop stands still while a base is hashed"
        loop_ran.clear()
        return base_roots(spec, base)

    async def tick() -> None:
        while True:
            loop_ran.set()
            await asyncio.sleep(0)

    for module in ("miner.bases", "miner.disk"):
        monkeypatch.setattr(f"{module}.base_roots", hash_while_the_loop_runs)
    async with bench(tmp_path) as made:
        ticking = asyncio.create_task(tick())
        await made.keeper.fetch(SEED, {})
        await made.keeper.apply(ApplyMerge(0, (), trained=False), {})
        await made.keeper.from_disk(1)
        ticking.cancel()


async def test_another_base_than_the_runs_loses_the_state(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        with pytest.raises(StateLost, match="another digest"):
            await made.keeper.fetch(FetchBase(0, "de" * 32, ()), {})
        assert made.disk.newest_base() is None


async def test_a_stored_base_is_the_one_that_is_fetched(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        data = base_parts(SPEC, initial_base(SPEC, 0))
        put = made.keeper.objects.put
        parts = [await put(str(BaseKey(SPEC.id, 1, 0, n)), part) for n, part in enumerate(data)]
        assert await made.keeper.fetch(FetchBase(1, FIRST, tuple(parts)), {}) == BaseHeld(1, FIRST)


async def test_start_weights_other_than_those_of_the_spec_are_not_taken_whoever_names_them(
    tmp_path: Path,
) -> None:
    init = InitSpec(source="acme/llama", digests=("de" * 32,) * SPEC.layout.stages)
    async with bench(tmp_path) as made:
        made.keeper.spec = RunSpec.model_validate({**SPEC.model_dump(), "init": init})
        put = made.keeper.objects.put
        data = base_parts(SPEC, initial_base(SPEC, 0))
        parts = [await put(str(BaseKey(SPEC.id, 0, 0, n)), part) for n, part in enumerate(data)]
        for digest in (None, FIRST):
            with pytest.raises(StateLost, match="another digest"):
                await made.keeper.fetch(FetchBase(0, digest, tuple(parts)), {})
        with pytest.raises(StateLost, match="the orchestrator names none"):
            await made.keeper.fetch(SEED, {})
        assert made.disk.newest_base() is None


async def test_a_base_whose_parts_are_gone_loses_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miner.retry.FEW_TRIES", 1)
    gone = StoredObject(key=f"{SPEC.id}/base/1/0/part-000.safetensors", digest="0" * 64, size=9)
    async with bench(tmp_path) as made:
        with pytest.raises(StateLost, match="cannot be had"):
            await made.keeper.fetch(FetchBase(1, FIRST, (gone,)), {})


async def test_a_merge_without_parts_keeps_the_weights(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.keeper.fetch(SEED, {})
        assert await made.keeper.apply(ApplyMerge(0, (), trained=False), {}) == BaseHeld(1, FIRST)
        assert made.disk.newest_base() == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16-sr"])
async def test_a_merge_moves_the_base_and_moments_go_on_where_the_replica_trained(
    tmp_path: Path, precision: str
) -> None:
    spec = small_spec(schedule={"epochs": 2}, precision=precision)
    first = base_digest(spec, initial_base(spec, 0))
    async with bench(tmp_path, spec) as made:
        assert await made.keeper.fetch(SEED, {}) == BaseHeld(0, first)
        assert await made.trainer.load(LoadState(0, 0, carries=True)) == StateLoaded(0, 0)
        assert await made.trainer.commit(WriteCommit(0, 0)) == Committed(0, 0)
        assert made.disk.snapshot(0, 0).exists()
        batch = made.keeper.runner.log.after(0)
        assert batch is not None
        assert [r.commitment.base for r in batch.receipts if r.commitment is not None] == [first]
        held = flatten(made.keeper.runner.engine.state().weights).numpy()
        assert np.array_equal(held, started(spec, initial_base(spec, 0).weights))
        merged = part_bytes(np.ones_like(initial_base(spec, 0).weights))
        part = await made.keeper.objects.put(f"{spec.id}/merged/0/0/part-000.x", merged)
        held = await made.keeper.apply(ApplyMerge(0, (part,), trained=True), {})
        assert held.epoch == 1
        assert held.digest != first
        start = load_state(made.disk.start_state(1), spec, 0)
        assert start.moments
        assert held == await made.keeper.from_disk(1)
        for carries in (True, False):
            await made.trainer.load(LoadState(1, 0, carries))
            moments = made.keeper.runner.engine.state().moments
            assert bool(moments) is carries or not any(m.any() for m in moments.values())


@pytest.mark.parametrize(("carries", "trained"), [(True, True), (False, True), (True, False)])
async def test_feedback_goes_on_where_the_replica_trained_and_its_pseudo_gradient_was_merged(
    tmp_path: Path, carries: bool, trained: bool
) -> None:
    spec = small_spec(schedule={"epochs": 2}, outer={"codec": "sparse"})
    async with bench(tmp_path, spec) as made:
        files, disk = DeltaFiles(spec, made.disk), made.disk
        await made.keeper.fetch(SEED, {})
        await made.trainer.load(LoadState(0, 0, carries=False))
        weights = named_weights(spec, 0, initial_base(spec, 0).weights)
        root = files.write(EpochStart(0, weights), {name: w + 1e-3 for name, w in weights.items()})
        assert disk.delta_parts(0)
        await made.keeper.apply(ApplyMerge(0, (), trained=trained), {})
        assert not disk.delta_parts(0), "it is merged"
        await made.trainer.load(LoadState(1, 0, carries=carries))
        await made.trainer.commit(WriteCommit(1, 0))
        batch = made.keeper.runner.log.after(0)
        assert batch is not None
        shown = [r.commitment.feedback for r in batch.receipts if r.epoch == 1 and r.commitment is not None]
        assert shown == [root if carries and trained else EMPTY]


async def test_who_takes_a_base_begins_without_feedback(tmp_path: Path) -> None:
    spec = small_spec(schedule={"epochs": 2}, outer={"codec": "sparse"})
    async with bench(tmp_path, spec) as made:
        files = DeltaFiles(spec, made.disk)
        weights = named_weights(spec, 0, initial_base(spec, 0).weights)
        files.write(EpochStart(-1, weights), weights)
        assert files.leaves(0)
        await made.keeper.fetch(SEED, {})
        assert files.leaves(0) == ()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_damaged_base_or_start_state_is_lost_and_can_be_made_again(
    tmp_path: Path, damage: Damage
) -> None:
    async with bench(tmp_path) as made:
        await made.keeper.fetch(SEED, {})
        damage(made.disk.root / "base" / "0" / "part-000.safetensors")
        with pytest.raises(StateLost, match="base of epoch 0 on this disk"):
            await made.keeper.from_disk(0)
        await made.keeper.fetch(SEED, {})
        damage(made.disk.start_state(0))
        with pytest.raises(StateLost, match="start state of epoch 0 on this disk"):
            await made.trainer.load(LoadState(0, 0, carries=True))
        made.disk.forget_state()
        assert await made.keeper.fetch(SEED, {}) == BaseHeld(0, FIRST)
        assert await made.trainer.load(LoadState(0, 0, carries=True)) == StateLoaded(0, 0)


async def test_a_power_cut_in_a_swap_leaves_the_old_base_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any sync of it; and once the replica says that it is ready, base, start and feedback stay."""
    spec = small_spec(schedule={"epochs": 2}, outer={"codec": "sparse", "momentum": 0.5})
    async with bench(tmp_path, spec) as made:
        await made.keeper.fetch(SEED, {})
        weights = named_weights(spec, 0, initial_base(spec, 0).weights)
        merged = write_merged(spec.outer.codec, np.ones_like(initial_base(spec, 0).weights))
        part = await made.keeper.objects.put(f"{spec.id}/merged/0/0/part-000.x", merged)
        await made.trainer.load(LoadState(0, 0, carries=False))
        with PowerCuts(made.disk.root).following(monkeypatch) as power:
            start = EpochStart(0, weights)
            root = DeltaFiles(spec, made.disk).write(start, {n: w + 1e-3 for n, w in weights.items()})
            held = await made.keeper.apply(ApplyMerge(0, (part,), trained=True), {})
    found = []
    for cut in range(len(power.cuts)):
        power.left_by(cut, tmp_path / str(cut))
        with MinerDisk(tmp_path / str(cut)) as disk:
            newest = disk.newest_base()
            assert newest is not None
            _, roots = disk.load_base(spec, 0, newest)
            load_state(disk.start_state(newest), spec, 0)
            found.append(newest)
            assert newest == 0 or roots.digest == held.digest
            assert newest == 0 or EpochStart(1, {}, DeltaFiles(spec, disk).leaves(1)).root == root
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 1)
