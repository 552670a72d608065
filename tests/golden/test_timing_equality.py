"""The same spec and seed give the same losses to the bit, whatever the timing of the transports."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.spec import Pipeline
from tests.support.live_swarm import LiveSwarm, Status, tiny

SLOW = {f"miner-{n:02d}": "tests.support.slow_miner:main" for n in range(3)}


async def _run(root: Path, pipeline: Pipeline, entries: dict[str, str]) -> Status:
    options = tiny(epochs=1, pipeline=pipeline)
    async with LiveSwarm(root, options, entries=entries) as swarm:
        return await swarm.finished()


@pytest.mark.parametrize("pipeline", list(Pipeline))
async def test_random_delays_change_no_bit(tmp_path: Path, pipeline: Pipeline) -> None:
    fast = await _run(tmp_path / "fast", pipeline, {})
    slow = await _run(tmp_path / "slow", pipeline, SLOW)
    assert slow["losses"] == fast["losses"]
    assert [b["digest"] for b in slow["bases"]] == [b["digest"] for b in fast["bases"]]
