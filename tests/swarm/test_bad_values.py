"""NaN costs one microbatch, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.support.live_swarm import LiveSwarm, tiny


async def test_a_nan_drops_its_microbatch_and_the_run_goes_on(tmp_path: Path) -> None:
    options = tiny(epochs=1)
    entries = {f"miner-{n:02d}": "tests.support.nan_miner:main" for n in range(3)}
    async with LiveSwarm(tmp_path / "run", options, entries=entries) as swarm:
        status = await swarm.finished()
    assert status["dropped"] == 1
    assert status["settled"] == options.steps_per_epoch * options.microbatches - 1
    assert any("microbatch 1 dropped: NaN or Inf" in line for line in status["named"])
