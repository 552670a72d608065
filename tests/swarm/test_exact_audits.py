"""Miners and a validator of one machine, in processes of their own: every audit compares bits."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.live_swarm import LiveSwarm, tiny


async def test_who_has_the_validators_device_shows_it_and_passes_to_the_bit(tmp_path: Path) -> None:
    async with LiveSwarm(tmp_path / "run", tiny(epochs=2), validator=True) as swarm:
        await swarm.finished()
        await asyncio.wait_for(asyncio.shield(swarm.running["validator"].ended), 60)
        [path] = swarm.run_dir.node("validator").glob("*/validator.sqlite")
    with closing(sqlite3.connect(path)) as database:
        verdicts = [json.loads(row[0]) for row in database.execute("SELECT json FROM verdicts")]
    assert {verdict["epoch"] for verdict in verdicts} == {0, 1}
    assert {(verdict["outcome"], verdict["profile"]) for verdict in verdicts} == {("pass", "exact")}
