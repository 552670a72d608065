"""Swarms whose merges go on while the next epoch is trained: they train, and survive restarts to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


async def test_a_killed_miner_of_a_run_with_overlap_comes_back_to_the_same_bits(tmp_path: Path) -> None:
    """It is killed in the second epoch, while the first is merged or after it."""
    options = tiny(epochs=3, values=VALUES)
    found: list[Status] = []
    each = options.steps_per_epoch * options.microbatches
    for kills in (False, True):
        async with LiveSwarm(tmp_path / f"run-{kills}", options, in_order=True) as swarm:
            if kills:
                status = await swarm.until(lambda s: s["settled"] >= each + 1)
                name = next(swarm.name_of(m["hotkey"]) for m in status["members"] if m["stage"] == 1)
                await swarm.kill(name)
                await swarm.restart(name)
            found.append(await swarm.finished())
    assert found[0]["losses"] == found[1]["losses"]
    assert found[0]["bases"] == found[1]["bases"]
