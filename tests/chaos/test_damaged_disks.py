"""Files of a miner are damaged while it is down: it notices, says so, and the run goes on to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.damage import Damage, changed, truncated
from tests.support.live_swarm import LiveSwarm, tiny


def one_line_changed(path: Path) -> None:
    """A line in the middle is another."""
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    lines[middle] = lines[middle].replace(b'"version":', b'"Version":')
    path.write_bytes(b"".join(lines))


CASES: dict[str, tuple[dict[str, Damage], list[str]]] = {
    "start state": (
        {"snapshots/*/start.safetensors": truncated, "cache/**/*.block": changed},
        ["start state of epoch", "cached block"],
    ),
    "base": ({"base/*/part-*.safetensors": changed, "frames/**/*.f": truncated}, ["base of epoch"]),
    "receipts": ({"receipts.jsonl": one_line_changed}, ["is damaged after receipt"]),
}
"""Damages by pattern of files, and what the miner says of them."""


@pytest.mark.parametrize("case", CASES)
async def test_a_miner_with_damaged_files_recovers_by_itself(tmp_path: Path, case: str) -> None:
    damages, said = CASES[case]
    options = tiny(stages=2, replicas=2, microbatches=8)
    async with LiveSwarm(tmp_path / "run", options) as swarm:
        status = await swarm.until(lambda s: s["settled"] >= 6)
        name = swarm.name_of(next(m["hotkey"] for m in status["members"] if m["stage"] == 0))
        await swarm.kill(name)
        for pattern, damage in damages.items():
            files = list(swarm.run_dir.node(name).glob(pattern))
            assert files, pattern
            for path in files:
                damage(path)
        await swarm.restart(name)
        status = await swarm.finished()
        log = swarm.run_dir.log(name).read_text()
    assert status["settled"] == options.epochs * options.steps_per_epoch * options.microbatches
    assert status["dropped"] == 0
    for sentence in said:
        assert sentence in log
    assert "Traceback" not in log
