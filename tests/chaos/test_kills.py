"""Processes are killed in the middle of a run; nothing is lost, and nothing counts twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.live_swarm import ORCHESTRATOR, LiveSwarm, Status, tiny


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Status:
    """The run that the others are held against."""

    async def run() -> Status:
        async with LiveSwarm(tmp_path_factory.mktemp("undisturbed"), tiny()) as swarm:
            return await swarm.finished()

    return asyncio.run(run())


def _whole(status: Status) -> None:
    options = tiny()
    planned = options.epochs * options.steps_per_epoch * options.microbatches
    assert (status["settled"], status["dropped"]) == (planned, 0)
    assert status["tokens"] == planned * options.sequence_length * options.sequences
    # forward and backward at two stages, loss at the third, and a STEP of each replica, and its COMMITs
    steps = options.epochs * options.steps_per_epoch
    commits = 3 * 2 * options.epochs  # to the first and the last version
    merges = 3 * 2 * options.epochs  # two miners merge the one part of each stage
    heldout = 3 * options.epochs  # one microbatch an epoch is proposed, with an op at each stage
    assert status["receipts"] == 5 * planned + 3 * steps + commits + merges + heldout
    assert status["heldout"].keys() == {"0", "1"}


def test_the_undisturbed_run_counts_everything_once(undisturbed: Status) -> None:
    _whole(undisturbed)
    assert undisturbed["losses"][-1] < undisturbed["losses"][0]


async def test_a_killed_orchestrator_goes_on_from_its_journal(undisturbed: Status, tmp_path: Path) -> None:
    async with LiveSwarm(tmp_path / "run", tiny()) as swarm:
        for settled in (6, 21):
            await swarm.until(lambda s, settled=settled: s["settled"] >= settled)
            await swarm.kill(ORCHESTRATOR)
            await swarm.restart(ORCHESTRATOR)
        status = await swarm.finished()
    _whole(status)
    assert status["losses"] == undisturbed["losses"]


@pytest.mark.parametrize("stage", [0, 1, 2])
async def test_a_killed_miner_comes_back_to_the_same_bits(
    undisturbed: Status, tmp_path: Path, stage: int
) -> None:
    async with LiveSwarm(tmp_path / "run", tiny()) as swarm:
        for settled in (6, 22):
            status = await swarm.until(lambda s, settled=settled: s["settled"] >= settled)
            name = next(swarm.name_of(m["hotkey"]) for m in status["members"] if m["stage"] == stage)
            await swarm.kill(name)
            await swarm.restart(name)
        status = await swarm.finished()
    _whole(status)
    assert status["losses"] == undisturbed["losses"]
    assert status["heldout"] == undisturbed["heldout"]
    assert status["bases"] == undisturbed["bases"]


async def test_work_of_a_killed_replica_is_issued_again(tmp_path: Path) -> None:
    options = tiny(stages=2, replicas=2, microbatches=8, epochs=1)
    async with LiveSwarm(tmp_path / "run", options) as swarm:
        status = await swarm.until(lambda s: s["settled"] >= 5)
        victim = next(m["hotkey"] for m in status["members"] if m["stage"] == 1)
        await swarm.kill(swarm.name_of(victim))
        status = await swarm.finished()
    assert status["rerouted"] > 0
    assert status["settled"] + status["dropped"] == options.steps_per_epoch * options.microbatches
    assert status["dropped"] == 0
