"""Swarms that send compressed pseudo-gradients: they train, are audited to the bit, and survive restarts."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_swarm import LiveSwarm, Status, tiny


def _values(codec: str) -> dict[str, Any]:
    return {
        "outer": {"codec": codec, "part_elements": 100_000},
        "audit": {"commit_every": 2, "window_steps": 4},
    }


@pytest.mark.parametrize("codec", ["int8", "sparse"])
async def test_a_swarm_with_a_codec_trains_and_its_segments_are_replayed_to_the_bit(
    tmp_path: Path, codec: str
) -> None:
    options = tiny(stages=2, replicas=2, microbatches=4, epochs=3, values=_values(codec))
    async with LiveSwarm(tmp_path / "run", options, validator=True) as swarm:
        status = await swarm.finished()
        await asyncio.wait_for(asyncio.shield(swarm.running["validator"].ended), 60)
        [path] = swarm.run_dir.node("validator").glob("*/validator.sqlite")
        assert swarm.spec.outer.codec.value == codec
    assert status["settled"] == 3 * options.steps_per_epoch * options.microbatches
    assert status["losses"][-1] < status["losses"][0]
    with closing(sqlite3.connect(path)) as database:
        verdicts = [json.loads(row[0]) for row in database.execute("SELECT json FROM verdicts")]
    assert {(verdict["outcome"], verdict["profile"]) for verdict in verdicts} == {("pass", "exact")}
    assert {"segment", "merge"} <= {verdict["audit"] for verdict in verdicts}


async def test_a_killed_miner_of_a_sparse_run_comes_back_to_the_same_bits(tmp_path: Path) -> None:
    """Its error feedback too: it is killed after the first merge, whose feedback the second one sends."""
    options = tiny(epochs=3, values=_values("sparse"))
    found: list[Status] = []
    each = options.steps_per_epoch * options.microbatches
    for kills in (False, True):
        async with LiveSwarm(tmp_path / f"run-{kills}", options) as swarm:
            if kills:
                status = await swarm.until(lambda s: s["settled"] >= each + 2)
                name = next(swarm.name_of(m["hotkey"]) for m in status["members"] if m["stage"] == 1)
                await swarm.kill(name)
                await swarm.restart(name)
            found.append(await swarm.finished())
    assert found[0]["losses"] == found[1]["losses"]
    assert found[0]["bases"] == found[1]["bases"]
