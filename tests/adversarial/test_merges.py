"""A poisoned pseudo-gradient and a lying merger in a real swarm, beside honest miners and a validator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live_swarm import LiveSwarm, tiny


@pytest.mark.parametrize("codec", ["none", "sparse"])
async def test_a_poisoner_and_a_lying_merger_are_named_and_the_run_goes_on(
    tmp_path: Path, codec: str
) -> None:
    # nine parts a stage: the liar is drawn for some of them
    values = {"outer": {"part_elements": 50_000, "codec": codec}}
    options = tiny(stages=2, replicas=2, epochs=2, steps_per_epoch=3, values=values)
    entries = {
        "miner-00": "tests.support.cheats.states:reversed_delta",
        "miner-01": "tests.support.cheats.merges:lying_merger",
    }
    async with LiveSwarm(tmp_path / "run", options, validator=True, entries=entries) as swarm:
        status = await swarm.finished(200)
        await swarm.validator_done(60)
        status = await swarm.finished()
    poisoner, liar = (swarm.crew.addresses[name] for name in entries)
    honest = {m["hotkey"] for m in status["members"] if m["role"] == "miner"} - {poisoner, liar}
    named = " ".join(status["named"])
    assert f"{poisoner}: its pseudo-gradient is left out" in named
    assert f"{liar} merged part" in named
    assert not any(hotkey in named for hotkey in honest)
    failed = {v["miner"] for v in status["verdicts"] if v["outcome"] == "fail"}
    assert poisoner in failed
    assert not failed & honest
    assert status["losses"][-1] < status["losses"][0] * 1.2
    assert not status["internal_errors"]
