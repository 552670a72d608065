"""A real swarm that its operator pauses, slows down and lets go on; validators replay what came of it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from iota.client.bridge import BridgeClient
from iota.client.orchestrator import OrchestratorClient
from iota.protocol.bridge import BEST_HELDOUT, LR_FACTOR, PAUSED
from orchestrator.coordinator import Coordinator
from orchestrator.journal import SqliteJournal
from tests.support.live_swarm import ORCHESTRATOR, LiveSwarm, Status, tiny

EPOCHS, STEPS, FACTOR = 3, 6, 0.25


def steps_of(status: Status) -> int:
    return int(status["losses_total"])


async def test_a_run_is_paused_slowed_and_audited_and_a_kill_forgets_nothing(tmp_path: Path) -> None:
    options = tiny(epochs=EPOCHS, steps_per_epoch=STEPS, values={"schedule": {"heldout": 4}})
    async with LiveSwarm(tmp_path / "run", options, validator=True) as swarm:
        key = swarm.crew.hotkeys[ORCHESTRATOR]
        async with OrchestratorClient(key, swarm.url, key.ss58, retry_for_s=60.0) as client:
            bridge = BridgeClient(client)
            await swarm.until(lambda s: steps_of(s) >= 1)
            await bridge.set(PAUSED, True)
            paused = await swarm.until(lambda s: "has paused the run" in (s["waiting"] or ""))
            await swarm.until(lambda s: s["open_microbatches"] == 0 and s["phase"] == "training")
            await swarm.kill(ORCHESTRATOR)
            await swarm.restart(ORCHESTRATOR)
            await bridge.set(LR_FACTOR, FACTOR)
            rested = await swarm.until(lambda s: all(m["live"] for m in s["members"]))
            assert steps_of(rested) - steps_of(paused) <= 2
            await bridge.set(PAUSED, False)
            await swarm.finished()
            await swarm.validator_done(60)
            best = await bridge.get(BEST_HELDOUT)
            status = await swarm.status()
        [path] = swarm.run_dir.node("validator").glob("*/validator.sqlite")
        spec = swarm.spec
        await swarm.kill(ORCHESTRATOR)
        rates = planned_rates(swarm.run_dir.journal, swarm)
    assert status is not None
    assert best is not None
    losses = {int(epoch): loss for epoch, loss in status["heldout"].items()}
    assert isinstance(best.value, dict)
    assert best.value["loss"] == min(losses.values())
    assert losses[int(str(best.value["epoch"]))] == best.value["loss"]
    full = [spec.learning_rate(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    slowed = next(at for at, rate in enumerate(rates) if rate != full[at])
    assert 1 <= slowed <= steps_of(rested) + 2
    assert rates == full[:slowed] + [rate * FACTOR for rate in full[slowed:]]
    with closing(sqlite3.connect(path)) as database:
        verdicts = [json.loads(row[0]) for row in database.execute("SELECT json FROM verdicts")]
    assert {verdict["outcome"] for verdict in verdicts} == {"pass"}
    assert {verdict["epoch"] for verdict in verdicts} == set(range(EPOCHS))


def planned_rates(journal: Path, swarm: LiveSwarm) -> list[float]:
    """The learning rate of each step's plan, by the journal."""
    coordinator, rates = Coordinator(swarm.spec), []
    opened = SqliteJournal(journal, swarm.spec, swarm.crew.addresses[ORCHESTRATOR])
    for entry in opened.replay():
        coordinator.apply(entry)
        rates += [plan.learning_rate for plan in coordinator.take_plans()]
    opened.close()
    return rates
