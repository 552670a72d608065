"""The object store dies in the middle of a run and comes back; nothing is lost but time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from iota.console.conditions import Condition
from tests.support.live_swarm import STORE, LiveSwarm, tiny

OUTAGE_S = 3.0
"""Longer than the tries of one transfer last, so that what was on its way fails."""


async def test_a_run_rides_out_a_store_that_is_away(tmp_path: Path) -> None:
    async with LiveSwarm(tmp_path / "undisturbed", tiny()) as swarm:
        undisturbed = await swarm.finished(60)
    async with LiveSwarm(tmp_path / "run", tiny()) as swarm:
        await swarm.until(lambda s: s["settled"] >= 6, 60)
        await swarm.kill(STORE)
        await asyncio.sleep(OUTAGE_S)  # the outage itself, and no wait for a condition
        await swarm.restart(STORE)
        status = await swarm.finished(60)
    options = tiny()
    planned = options.epochs * options.steps_per_epoch * options.microbatches
    assert (status["settled"], status["dropped"]) == (planned, 0)
    assert status["losses"] == undisturbed["losses"]
    log = "".join(path.read_text() for path in (tmp_path / "run").rglob("miner*.log"))
    assert Condition.STORE_AWAY.text in log
