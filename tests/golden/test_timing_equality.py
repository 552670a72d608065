"""The same spec and seed give the same bits by any transports, and at any timing of these and of devices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from iota.settings import Ways
from iota.spec import Pipeline
from iota.swarm.preparation import miner_names
from tests.support.live_swarm import LiveSwarm, Status, tiny

STAGES = 4
MINERS = miner_names(STAGES)
STORE = dict.fromkeys(MINERS, Ways.STORE)
MIXED = dict(zip(MINERS, (Ways.DIRECT, Ways.AUTO, Ways.IROH, Ways.STORE), strict=True))
"""By stage: from the first to the second by TCP, to the third by iroh, and to the last one by the store."""
SLOW = dict.fromkeys(MINERS, "tests.support.slow_miner:main")
PACED = {
    "miner-00": "tests.support.paced_miner:main",
    "miner-01": "tests.support.paced_miner:half_speed",
}
"""One stage at the usual pace, one at half, and two as fast as the machine is."""
Receipts = dict[tuple[Any, ...], Any]


async def _run(
    root: Path, pipeline: Pipeline, entries: Mapping[str, str], ways: Mapping[str, Ways]
) -> tuple[Status, Receipts]:
    """The last status, and what all receipts say of results."""
    options = tiny(stages=STAGES, epochs=1, pipeline=pipeline)
    async with LiveSwarm(root, options, entries=entries, ways=ways, in_order=True) as swarm:
        status = await swarm.finished()
    found: Receipts = {}
    for file in root.glob("nodes/*/receipts.jsonl"):
        for line in file.read_bytes().splitlines()[1:]:
            receipt = json.loads(line.partition(b" ")[2])
            key = tuple(receipt.get(name) for name in ("kind", "stage", "epoch", "step", "microbatch"))
            found[key] = [receipt.get(name) for name in ("output", "loss", "update", "version")]
    return status, found


def _ways_used(root: Path) -> dict[str, str]:
    """By miner: what its log says of the frames that it sent."""
    line = "frames that were sent until the seal"
    logs = {name: (root / "logs" / f"{name}.log").read_text() for name in MINERS}
    return {name: "".join(x for x in text.splitlines() if line in x) for name, text in logs.items()}


@pytest.mark.parametrize("pipeline", list(Pipeline))
async def test_transports_delays_of_frames_and_speeds_of_miners_change_no_bit(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    fast, receipts = await _run(tmp_path / "fast", pipeline, {}, STORE)
    assert len(receipts) > 4 * 4 * (2 * STAGES - 1)
    for name, entries, ways in (("slow", SLOW, MIXED), ("paced", PACED, {})):
        other, others = await _run(tmp_path / name, pipeline, entries, ways)
        assert other["losses"] == fast["losses"]
        assert [b["digest"] for b in other["bases"]] == [b["digest"] for b in fast["bases"]]
        assert others == receipts
    used = _ways_used(tmp_path / "slow")
    assert "by direct" in used["miner-00"]
    assert "by direct" in used["miner-01"]
    assert "by iroh" in used["miner-01"]
    assert "by iroh" in used["miner-02"]
    assert "by store" in used["miner-02"]
    assert "by direct" in _ways_used(tmp_path / "paced")["miner-00"]
