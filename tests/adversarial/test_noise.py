"""A miner that returns noise, in a real swarm beside honest ones and a real validator."""

from __future__ import annotations

from pathlib import Path

from iota.swarm.preparation import ledger_weights
from iota.swarm.programs import NETUID
from tests.support.live_swarm import LiveSwarm, tiny

EPOCHS = 3


async def test_noise_has_no_weight_within_three_epochs_and_the_honest_keep_theirs(tmp_path: Path) -> None:
    options = tiny(stages=2, replicas=2, epochs=EPOCHS, steps_per_epoch=3)
    entries = {"miner-00": "tests.support.cheats.compute:noise"}
    async with LiveSwarm(tmp_path / "run", options, validator=True, entries=entries) as swarm:
        await swarm.finished(200)
        await swarm.validator_done(60)
        status = await swarm.finished()  # once more: audits go on after the last step
        weights = await ledger_weights(swarm.crew, swarm.programs.url("ledger"), NETUID)
    liar = swarm.crew.addresses["miner-00"]
    honest = {m["hotkey"] for m in status["members"] if m["role"] == "miner"} - {liar}
    failed = {v["miner"] for v in status["verdicts"] if v["outcome"] == "fail"}
    assert failed == {liar}
    assert weights[liar] == 0
    assert all(weights[hotkey] > 0 for hotkey in honest)
