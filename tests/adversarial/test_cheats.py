"""Each cheat of docs/threat-model.md as a real miner, in a real swarm beside honest ones and a real validator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from iota.swarm.preparation import ledger_weights
from iota.swarm.programs import NETUID
from tests.support.live_swarm import LiveSwarm, tiny


@dataclass(frozen=True)
class Case:
    """A swarm with cheats by miner's name."""

    cheats: dict[str, str]
    stages: int = 2
    replicas: int = 2
    epochs: int = 4
    more: dict[str, Any] = field(default_factory=dict)


CASES = {
    "no work after the base, and no snapshot": Case({"miner-00": "lazy"}),
    "never steps": Case({"miner-00": "still"}),
    "frames that are not stored, and constants": Case({"miner-00": "unstored_frames", "miner-02": "constants"}),
    "reversed pseudo-gradient": Case({"miner-00": "reversed_delta"}),
    "pseudo-gradient of NaN": Case({"miner-00": "nan_delta"}),
    "huge pseudo-gradient": Case({"miner-00": "huge_delta"}),
    "no pseudo-gradient": Case({"miner-00": "no_delta"}),
    "lying mergers": Case({f"miner-0{n}": "lying_merger" for n in (0, 1, 2)}),
    "noise without receipts": Case({"miner-00": "no_forward_receipts"}),
    "second receipts": Case({"miner-00": "second_receipts"}),
    "denied frames": Case({"miner-02": "denier"}),
    "false NaN": Case({"miner-02": "crier"}),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_cheat_loses_its_weight_and_the_honest_keep_theirs(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    options = tiny(
        stages=case.stages, replicas=case.replicas, epochs=case.epochs, steps_per_epoch=3, **case.more
    )
    entries = {miner: f"tests.support.cheats:{cheat}" for miner, cheat in case.cheats.items()}
    async with LiveSwarm(tmp_path / "run", options, validator=True, entries=entries) as swarm:
        await swarm.finished(240)
        await swarm.validator_done(60)
        status = await swarm.finished()
        weights = await ledger_weights(swarm.crew, swarm.programs.url("ledger"), NETUID)
    liars = {swarm.crew.addresses[name] for name in case.cheats}
    honest = {m["hotkey"] for m in status["members"] if m["role"] == "miner"} - liars
    assert all(weights[liar] == 0 for liar in liars)
    assert all(weights[hotkey] > 0 for hotkey in honest)
