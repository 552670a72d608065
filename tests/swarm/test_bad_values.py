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


async def test_nan_that_a_neighbour_pushes_and_does_not_store_costs_nobody_any_work(tmp_path: Path) -> None:
    options = tiny(epochs=1)
    entries = {"miner-00": "tests.support.nan_pusher:main"}
    async with LiveSwarm(tmp_path / "run", options, entries=entries, in_order=True) as swarm:
        status = await swarm.finished()
        log = swarm.run_dir.log("miner-01").read_text()
    assert "NaN or Inf" in log
    assert (status["dropped"], status["rerouted"]) == (0, 0)
    assert status["settled"] == options.steps_per_epoch * options.microbatches
    assert not any("NaN or Inf" in line for line in status["named"])
