"""From registration to weights on a subtensor node, by our commands only, and `btcli` sees the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from iota.chain.weight_rules import normalise
from iota.identity.coldkey import load_coldkey
from iota.swarm.preparation import VALIDATOR
from tests.support.live_swarm import Status, tiny
from tests.support.subtensor.fixtures import sdk_home  # noqa: F401
from tests.support.subtensor.process import NodeProcess
from tests.support.subtensor_swarm import PASSWORD, TOKEN, SubtensorSwarm, succeeded
from tests.swarm.test_secrets import assert_none_told, logs_of, swarm_secrets

BLOCK_S = 0.25
BTCLI = Path(sys.executable).with_name("btcli")
TIMES = (
    "--block-time",
    str(BLOCK_S),
    "--slot-time",
    str(BLOCK_S),
    "--tempo",
    "12",
    "--weights-rate-limit",
    "4",
)


@pytest.mark.usefixtures("sdk_home")
async def test_a_swarm_on_a_node_ends_with_weights_in_force_and_tells_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTA_LOG_LEVEL", "DEBUG")
    async with (
        NodeProcess(*TIMES, "--shielded") as node,
        SubtensorSwarm(tmp_path / "run", tiny(), node) as swarm,
    ):
        await swarm.finished(120)
        await swarm.validator_done(120)
        status = await swarm.status()
        miner, validator = (swarm.crew.hotkeys[name].ss58 for name in ("miner-00", VALIDATOR))
        await swarm.iota("chain", "serve", "203.0.113.7", "8091", *swarm.wallet("miner-00"), *swarm.chain)
        shown = json.loads(await swarm.iota("chain", "show", "--json", *swarm.chain))
        rows = json.loads(await swarm.iota("chain", "weights", "--json", *swarm.chain))
        tip = await swarm.iota("chain", "commitment", validator, *swarm.chain)
        seen = await succeeded([str(BTCLI), "subnets", "metagraph", "9", "--network", node.url, "--json"])
        await swarm.iota("chain", "show", *swarm.chain)
        root = swarm.run_dir.root
        words = (root / "mnemonic").read_text().strip()
        secrets = swarm_secrets(swarm) | {"password": PASSWORD, "access token": TOKEN, "mnemonic": words}
    assert status is not None
    assert status["audits"]["passed"] > 0
    assert status["audits"]["failed"] == 0
    neurons = {n["hotkey"]: n for n in shown["subnet"]["neurons"]}
    assert neurons[miner]["axon"] == {"ip": "203.0.113.7", "port": 8091}
    [row] = rows
    assert row["hotkey"] == validator
    assert {int(uid): w for uid, w in row["weights"].items()} == expected_row(status, neurons)
    assert tip.split()[1]
    assert miner in seen
    assert load_coldkey(root.name, root.parent, PASSWORD).ss58 in swarm.said
    assert_none_told({**logs_of(swarm), "the commands": swarm.said}, secrets)


@pytest.mark.usefixtures("sdk_home")
async def test_hidden_weights_are_read_back_after_their_reveal(tmp_path: Path) -> None:
    """Nobody here can open the time lock, so the test is the beacon: it says what was sealed."""
    async with (
        NodeProcess(*TIMES, "--commit-reveal") as node,
        SubtensorSwarm(tmp_path / "run", tiny(epochs=12), node) as swarm,
    ):
        validator = swarm.crew.hotkeys[VALIDATOR].ss58
        status = await swarm.until(lambda s: bool(s["weights"]), 120)
        shown = json.loads(await swarm.iota("chain", "show", "--json", *swarm.chain))
        row = expected_row(status, {n["hotkey"]: n for n in shown["subnet"]["neurons"]})
        assert await swarm.iota("chain", "weights", "--json", *swarm.chain) == "[]\n"
        assert await node.tell("reveal", hotkey=validator, weights=row) >= 1
        log = swarm.run_dir.log(VALIDATOR)
        await swarm.until(lambda _: "in force" in log.read_text(), 60)
        rows = json.loads(await swarm.iota("chain", "weights", "--json", *swarm.chain))
    assert {int(uid): w for uid, w in rows[0]["weights"].items()} == row


def expected_row(status: Status, neurons: dict[str, dict[str, int]]) -> dict[int, int]:
    """What the chain must hold of the weights that the validator told the orchestrator."""
    [told] = status["weights"].values()
    return normalise({neurons[hotkey]["uid"]: w for hotkey, w in told.items() if w > 0})
