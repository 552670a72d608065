"""What a miner's disk holds when the run has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.live_swarm import LiveSwarm, tiny


async def test_a_run_that_ends_leaves_only_its_last_bases_on_the_miners_disks(tmp_path: Path) -> None:
    options = tiny(epochs=2)
    async with LiveSwarm(tmp_path / "run", options) as swarm:
        await swarm.finished()
        miners = [p for name, p in swarm.running.items() if name.startswith("miner-")]
        await asyncio.wait_for(asyncio.gather(*(asyncio.shield(p.ended) for p in miners)), 60)
        disks = [swarm.run_dir.node(f"miner-{n:02d}") for n in range(len(miners))]
        left = {path.name for disk in disks for path in disk.glob("*/*") if path.name.isdigit()}
    assert len(miners) == 3
    assert left == {"2"}
