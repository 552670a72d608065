"""Bases and starts on a miner's disk in a run with overlap: what is damaged, gone or of another life."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iota.outer.base import base_digest, initial_base, named_weights
from iota.outer.own_start import own_start
from iota.outer.pseudo_gradient import flatten
from iota.protocol.frames import StoredObject
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from miner.core.effects import ApplyMerge, FetchBase, LoadState
from miner.core.facts import BaseHeld
from miner.op_records import StateLost
from tests.support.damage import DAMAGES, Damage
from tests.support.overlapped_replicas import overlapped
from tests.support.small_runs import sample, small_run

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC: RunSpec = small_run(
    layout={"cuts": [4]},
    schedule={"epochs": 3, "steps": 1, "microbatches": 1},
    outer={"overlap": "one_epoch", "eta": 0.7, "momentum": 0.9, "part_elements": 4096},
)
FIRST = base_digest(SPEC, initial_base(SPEC, 0))
NOTHING = ApplyMerge(0, (), trained=False)


async def test_a_base_from_the_seed_is_found_on_the_disk_without_a_start_state(tmp_path: Path) -> None:
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        [replica] = swarm.all()
        assert replica.disk.newest_base() is None
        assert replica.disk.newest_base(overlaps=True) == 0
        assert await replica.bases.from_disk(0) == BaseHeld(0, FIRST)


async def test_a_merge_without_parts_keeps_the_base(tmp_path: Path) -> None:
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        [replica] = swarm.all()
        assert await replica.bases.apply(NOTHING, {}) == BaseHeld(1, FIRST)
        assert await replica.bases.from_disk(1) == BaseHeld(1, FIRST)


async def test_a_base_with_another_digest_than_the_runs_is_not_kept(tmp_path: Path) -> None:
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        [replica] = swarm.all()
        with pytest.raises(StateLost, match="another digest"):
            await replica.bases.fetch(FetchBase(1, "de" * 32, ()), {})
        assert replica.disk.newest_base(overlaps=True) == 0


async def test_a_merge_that_cannot_be_had_loses_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miner.retry.FEW_TRIES", 1)
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        [replica] = swarm.all()
        await swarm.begin(0)
        await swarm.train(0)
        [merge] = await swarm.merge(0)
        gone = StoredObject(key=merge.parts[0].key + "x", digest="0" * 64, size=9)
        with pytest.raises(StateLost, match="parts where the stage has"):
            await replica.bases.apply(ApplyMerge(0, merge.parts[1:], trained=False), {})
        with pytest.raises(StateLost, match="cannot be had"):
            await replica.bases.apply(ApplyMerge(0, (gone, *merge.parts[1:]), trained=False), {})
        assert replica.disk.newest_base(overlaps=True) == 0, "what was begun is not there"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_what_is_damaged_on_the_disk_is_neither_merged_nor_trained_from(
    tmp_path: Path, damage: Damage
) -> None:
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        [replica] = swarm.all()
        await swarm.begin(0)
        await swarm.train(0)
        damage(replica.disk.root / "base" / "0" / "part-000.safetensors")
        with pytest.raises(StateLost, match="the base of epoch 0 on this disk is damaged"):
            await replica.bases.apply(NOTHING, {})
        with pytest.raises(StateLost, match="start state of epoch 1 on this disk is damaged"):
            await replica.begin(1, carries=True)
        with pytest.raises(StateLost, match="the base of epoch 0 on this disk is damaged"):
            await replica.bases.from_disk(0)


async def test_a_pseudo_gradient_stays_until_base_and_own_start_are_made_of_it(tmp_path: Path) -> None:
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        [replica] = swarm.all()
        await swarm.begin(0)
        await swarm.train(0)
        await swarm.apply(await swarm.merge(0))
        assert replica.contribution(0), "the own start is not made"
        await swarm.begin(1)
        assert not replica.contribution(0)
        await swarm.train(1)
        merges = await swarm.merge(1)
        await swarm.begin(2)
        assert replica.contribution(1), "the base is not made"
        await swarm.apply(merges)
        assert not replica.contribution(1)


async def test_an_own_start_is_the_outer_step_with_the_own_contribution_alone(tmp_path: Path) -> None:
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        [replica] = swarm.all()
        await swarm.begin(0)
        await swarm.train(0)
        given = np.concatenate([np.frombuffer(part, "<f4") for part in replica.contribution(0)])
        expected = own_start(SPEC, 1, initial_base(SPEC, 0), given)
        await swarm.begin(1)
        assert np.array_equal(flatten(replica.state().weights).numpy(), expected)
        [first] = [r for r in replica.receipts() if r.epoch == 1]
        assert first.commitment is not None
        assert first.commitment.beginning is not None
        assert first.commitment.beginning.rest == replica.base(0)[1].rest, "that of the anchor"


async def test_who_has_nothing_of_the_epoch_before_cannot_go_on_from_it(tmp_path: Path) -> None:
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        with pytest.raises(StateLost, match="of which nothing is here"):
            await swarm.all()[0].trainer.load(LoadState(1, 0, carries=True))


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_second_life_in_an_epoch_begins_with_the_anchor_and_is_receipted_anew(
    tmp_path: Path, restarts: bool
) -> None:
    """Also where the miner restarts in between, and finds the receipts of the first one."""
    async with overlapped(tmp_path, SPEC, [sample(SPEC)]) as swarm:
        await swarm.begin(0)
        await swarm.train(0)
        await swarm.begin(1)
        if restarts:
            swarm.restart(0)
        await swarm.begin(1, anchored=[0])
        [replica] = swarm.all()
        held = named_weights(SPEC, 0, initial_base(SPEC, 0).weights)
        assert all(np.array_equal(w, held[name]) for name, w in replica.state().weights.items())
        assert not any(m.any() for m in replica.state().moments.values())
        commits = [r for r in replica.receipts() if r.key == (1, 0, 0, 0, OpKind.COMMIT)]
        bases = [r.commitment.base for r in commits if r.commitment is not None]
        assert [base == FIRST for base in bases] == [False, True]
        if restarts:
            swarm.restart(0)
            await swarm.begin(1, anchored=[0])
            assert len(swarm.all()[0].receipts()) == len(replica.receipts()), "nothing is receipted twice"
