"""Validators on two classes of devices in a real swarm, and one that joins late, beside cheats."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from iota.chain import open_chain
from iota.swarm.programs import NETUID
from tests.support.live_swarm import VALIDATOR, LiveSwarm, OtherValidator, tiny

EPOCHS, STEPS = 4, 3
OLDER, LATE = "validator-older", "validator-late"
CHEATS = {
    "miner-00": "tests.support.cheats.compute:noise",  # each validator's own draw finds it
    "miner-01": "tests.support.cheats.states:fast",  # the segment that is one validator's turn shows it
}
HONEST = {"miner-02", "miner-03"}


def other_kernels() -> str:
    """The program of a validator whose kernels are not those that this machine takes by itself."""
    newer = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return f"tests.support.older_cpus:{'avx2' if newer else 'plain'}"


class Found:
    """What one validator kept of the run, with names for hotkeys."""

    def __init__(self, swarm: LiveSwarm, name: str) -> None:
        (folder,) = (path.parent for path in swarm.run_dir.node(name).glob("*/validator.sqlite"))
        with closing(sqlite3.connect(folder / "validator.sqlite")) as database:
            rows = database.execute("SELECT json FROM verdicts").fetchall()
        self.verdicts: list[dict[str, Any]] = [json.loads(text) for (text,) in rows]
        for verdict in self.verdicts:
            verdict["miner"] = swarm.name_of(verdict["miner"])
        scores = json.loads((folder / "scores.json").read_text())
        assert scores["epoch"] == EPOCHS - 1, scores["epoch"]
        assert not scores["internal_errors"]
        assert not scores["silenced"]
        self.weights = {swarm.name_of(m): score["weight"] for m, score in scores["miners"].items()}
        self.failed_epochs = {
            swarm.name_of(m): score["failed_epochs"] for m, score in scores["miners"].items()
        }

    def fails(self, first: int = 0) -> set[tuple[str, int]]:
        """(miner, epoch) of the failed audits."""
        return {
            (v["miner"], v["epoch"]) for v in self.verdicts if v["outcome"] == "fail" and v["epoch"] >= first
        }

    def honest_audits(self, *kinds: str) -> set[tuple[str, str]]:
        """(outcome, profile) of audits of the honest, of these kinds or of all."""
        return {
            (v["outcome"], v["profile"])
            for v in self.verdicts
            if v["miner"] in HONEST and (not kinds or v["audit"] in kinds)
        }


async def test_both_classes_find_the_same_fails_and_all_set_the_same_weights(tmp_path: Path) -> None:
    values = {"audit": {"window_steps": STEPS, "ops": 1, "deadline_s": 150}}
    options = tiny(stages=2, replicas=2, epochs=EPOCHS, steps_per_epoch=STEPS, values=values)
    others = (OtherValidator(OLDER, other_kernels()), OtherValidator(LATE, late=True))
    async with LiveSwarm(tmp_path / "run", options, entries=CHEATS, in_order=True, others=others) as swarm:
        await swarm.until(lambda status: status["epoch"] >= EPOCHS // 2)
        await swarm.start_validator(LATE)
        status = await swarm.finished(240)
        names = (VALIDATOR, OLDER, LATE)
        for name in names:
            await swarm.validator_done(60, name)
        async with open_chain(swarm.programs.url("ledger")) as chain:
            rows = {row.hotkey: dict(row.weights) for row in await chain.weights(NETUID)}
        first, older, late = (Found(swarm, name) for name in names)
        addresses = swarm.crew.addresses

    devices = {m["hotkey"]: m["device"] for m in status["members"]}
    assert devices[addresses[VALIDATOR]] == devices[addresses["miner-00"]]
    assert devices[addresses[OLDER]] != devices[addresses[VALIDATOR]]
    assert first.honest_audits() == late.honest_audits() == {("pass", "exact")}
    across = older.honest_audits("op", "segment")
    assert {outcome for outcome, _ in across} == {"pass"}
    assert not {profile for _, profile in across if not profile.startswith(("measured/", "declared/"))}

    assert first.fails() == older.fails()
    assert {miner for miner, _ in first.fails()} == set(CHEATS)
    joined = min(v["epoch"] for v in late.verdicts)
    assert joined >= EPOCHS // 2
    assert late.fails() == first.fails(joined)
    assert first.failed_epochs == older.failed_epochs == late.failed_epochs

    assert first.weights == older.weights == late.weights
    assert {miner for miner, weight in first.weights.items() if weight > 0} == HONEST
    assert rows[addresses[VALIDATOR]] == rows[addresses[OLDER]] == rows[addresses[LATE]]
