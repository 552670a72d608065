"""The same spec and seed give the same losses to the bit, at any timing of transports and devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.spec import Pipeline
from tests.support.live_swarm import LiveSwarm, Status, tiny

SLOW = {f"miner-{n:02d}": "tests.support.slow_miner:main" for n in range(3)}
PACED = {
    "miner-00": "tests.support.paced_miner:main",
    "miner-01": "tests.support.paced_miner:half_speed",
}
"""One stage at the usual pace, one at half, and one as fast as the machine is."""


async def _run(root: Path, pipeline: Pipeline, entries: dict[str, str]) -> Status:
    options = tiny(epochs=1, pipeline=pipeline)
    async with LiveSwarm(root, options, entries=entries) as swarm:
        return await swarm.finished()


@pytest.mark.parametrize("pipeline", list(Pipeline))
async def test_delays_of_frames_and_speeds_of_miners_change_no_bit(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    fast = await _run(tmp_path / "fast", pipeline, {})
    for name, entries in (("slow", SLOW), ("paced", PACED)):
        other = await _run(tmp_path / name, pipeline, entries)
        assert other["losses"] == fast["losses"]
        assert [b["digest"] for b in other["bases"]] == [b["digest"] for b in fast["bases"]]
