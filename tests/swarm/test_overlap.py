"""Swarms whose merges go on while the next epoch is trained: they train, and survive restarts to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iota.swarm.preparation import ORCHESTRATOR
from tests.support.live_swarm import LiveSwarm, Status, tiny

VALUES: dict[str, Any] = {
    "outer": {"overlap": "one_epoch", "codec": "sparse", "part_elements": 100_000},
    "audit": {"commit_every": 2},
}


async def test_a_swarm_with_one_replica_a_stage_has_the_bases_of_the_run_without_overlap(
    tmp_path: Path,
) -> None:
    found: list[Status] = []
    for overlap in ("none", "one_epoch"):
        options = tiny(epochs=3, values={"outer": {"overlap": overlap, "part_elements": 100_000}})
        async with LiveSwarm(tmp_path / overlap, options, in_order=True) as swarm:
            found.append(await swarm.finished())
            assert swarm.spec.overlaps is (overlap == "one_epoch")
    assert found[0]["bases"] == found[1]["bases"]
    assert found[0]["losses"] == found[1]["losses"]


async def test_a_run_with_overlap_whose_processes_are_killed_has_the_bits_of_the_undisturbed_one(
    tmp_path: Path,
) -> None:
    """Miners are killed at the end of an epoch, while it is merged, and after it; the orchestrator too."""
    options = tiny(epochs=4, values=VALUES)
    found: list[Status] = []
    each = options.steps_per_epoch * options.microbatches
    for kills in ([], [(each, 1), (each + 3, 0), (2 * each, 2), (2 * each + 2, None), (3 * each + 1, 1)]):
        async with LiveSwarm(tmp_path / f"run-{len(kills)}", options, in_order=True) as swarm:
            for settled, stage in kills:
                status = await swarm.until(lambda s, settled=settled: s["settled"] >= settled)
                name = await the_miner(swarm, status, stage)
                await swarm.kill(name)
                await swarm.restart(name)
            found.append(await swarm.finished())
    assert found[0]["losses"] == found[1]["losses"]
    assert found[0]["bases"] == found[1]["bases"]


async def the_miner(swarm: LiveSwarm, status: Status, stage: int | None) -> str:
    """The name of the only miner of a stage; that of the orchestrator for None."""
    if stage is None:
        return ORCHESTRATOR
    return next(swarm.name_of(m["hotkey"]) for m in status["members"] if m["stage"] == stage)


async def test_a_run_with_overlap_goes_on_without_a_replica_that_is_gone_for_good(tmp_path: Path) -> None:
    options = tiny(stages=2, replicas=2, microbatches=4, epochs=4, values=VALUES)
    each = options.steps_per_epoch * options.microbatches
    async with LiveSwarm(tmp_path / "run", options, in_order=True) as swarm:
        status = await swarm.until(lambda s: s["settled"] >= each + 2)
        gone = next(m["hotkey"] for m in status["members"] if m["stage"] == 1)
        await swarm.kill(swarm.name_of(gone))
        status = await swarm.finished()
    assert status["settled"] == 4 * each
    assert max(base["epoch"] for base in status["bases"]) == 4
    assert status["losses"][-1] < status["losses"][0]


async def test_who_is_left_out_of_a_merge_begins_the_epoch_that_is_in_training_again_from_the_anchor(
    tmp_path: Path,
) -> None:
    """Its pseudo-gradients are no files: the merge finds it out while it trains from its own start."""
    options = tiny(stages=2, replicas=2, microbatches=4, epochs=4, steps_per_epoch=16, values=VALUES)
    entries = {"miner-00": "tests.support.cheats.states:unreadable_delta"}
    async with LiveSwarm(tmp_path / "run", options, entries=entries, in_order=True) as swarm:
        status = await swarm.finished()
        cheat, honest = (swarm.run_dir.log(name).read_text() for name in ("miner-00", "miner-02"))
    assert status["settled"] == 4 * options.steps_per_epoch * options.microbatches
    assert any("left out of the merge of stage 0: unreadable" in line for line in status["named"])
    again = [epoch for epoch in range(4) if cheat.count(f"takes part in epoch {epoch} from") > 1]
    assert again
    assert 0 not in again
    assert "state is lost" not in cheat + honest
    assert all(honest.count(f"takes part in epoch {epoch} from") == 1 for epoch in range(4))
