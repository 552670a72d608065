"""A swarm whose states take the fewest bytes: bf16 weights, int8 moments, bf16 sums of gradients."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from iota.spec import GradientSums, Moments
from tests.support.live_swarm import LiveSwarm, tiny

VALUES = {
    "precision": "bf16-sr",
    "optimizer": {"kind": "muon", "moments": "int8", "gradient_sums": "bf16"},
    "audit": {"commit_every": 2, "window_steps": 4},
}


async def test_a_swarm_trains_and_its_segments_are_replayed_to_the_bit(tmp_path: Path) -> None:
    options = tiny(epochs=2, pipeline="delayed", values=VALUES)
    async with LiveSwarm(tmp_path / "run", options, validator=True) as swarm:
        status = await swarm.finished()
        await asyncio.wait_for(asyncio.shield(swarm.running["validator"].ended), 60)
        [path] = swarm.run_dir.node("validator").glob("*/validator.sqlite")
        own = swarm.spec.optimizer
    assert (own.moments, own.gradient_sums) == (Moments.INT8, GradientSums.BF16)
    assert status["settled"] == 2 * options.steps_per_epoch * options.microbatches
    with closing(sqlite3.connect(path)) as database:
        verdicts = [json.loads(row[0]) for row in database.execute("SELECT json FROM verdicts")]
    assert {(verdict["outcome"], verdict["profile"]) for verdict in verdicts} == {("pass", "exact")}
    assert "segment" in {verdict["audit"] for verdict in verdicts}
