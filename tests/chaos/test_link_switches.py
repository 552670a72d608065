"""Links fail and come back in mid-epoch: no microbatch is lost, and the bits are those of the store alone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from iota.settings import Ways
from tests.support.live_swarm import STORE, LiveSwarm, Status, tiny

MINERS = ("miner-00", "miner-01", "miner-02")
"""By stage."""
SWITCHING = {"miner-01": "tests.support.switching_miner:main"}
AWAY_S = 3.0
STEP = 4
"""Microbatches."""


def _swarm(root: Path, way: Ways, entries: Mapping[str, str] | None = None) -> LiveSwarm:
    return LiveSwarm(root, tiny(), entries=entries, ways=dict.fromkeys(MINERS, way), in_order=True)


@pytest.fixture(scope="module")
def by_store(tmp_path_factory: pytest.TempPathFactory) -> Status:
    """The run that the others are held against."""

    async def run() -> Status:
        async with _swarm(tmp_path_factory.mktemp("by-store"), Ways.STORE) as swarm:
            return await swarm.finished()

    return asyncio.run(run())


def _same(status: Status, expected: Status) -> None:
    options = tiny()
    planned = options.epochs * options.steps_per_epoch * options.microbatches
    assert (status["settled"], status["dropped"]) == (planned, 0)
    assert status["losses"] == expected["losses"]
    assert status["bases"] == expected["bases"]


async def _settled(swarm: LiveSwarm, count: int) -> None:
    await swarm.until(lambda status: status["settled"] >= count)


def _log(swarm: LiveSwarm, name: str) -> str:
    return swarm.run_dir.log(name).read_text()


async def test_a_tcp_server_that_goes_away_and_comes_back_elsewhere_costs_no_frame(
    by_store: Status, tmp_path: Path
) -> None:
    async with _swarm(tmp_path / "run", Ways.DIRECT, SWITCHING) as swarm:
        process = psutil.Process(swarm.running["miner-01"].pid)
        await _settled(swarm, STEP)
        process.send_signal(signal.SIGUSR1)
        await _settled(swarm, 3 * STEP)
        process.send_signal(signal.SIGUSR2)
        status = await swarm.finished()
        assert "did not reach" in _log(swarm, "miner-00") + _log(swarm, "miner-02")
    _same(status, by_store)


async def test_an_iroh_process_that_dies_or_stops_costs_no_frame(by_store: Status, tmp_path: Path) -> None:
    async with _swarm(tmp_path / "run", Ways.IROH) as swarm:
        for settled, name, number in (
            (STEP, "miner-01", signal.SIGKILL),
            (3 * STEP, "miner-00", signal.SIGSTOP),
        ):
            await _settled(swarm, settled)
            (child,) = psutil.Process(swarm.running[name].pid).children()
            child.send_signal(number)
        status = await swarm.finished()
        assert "the iroh process has ended" in _log(swarm, "miner-01")
    _same(status, by_store)


async def test_links_go_on_while_the_store_is_away(by_store: Status, tmp_path: Path) -> None:
    async with _swarm(tmp_path / "run", Ways.DIRECT) as swarm:
        await _settled(swarm, STEP)
        await swarm.kill(STORE)
        await _settled(swarm, 3 * STEP)
        await swarm.restart(STORE)
        status = await swarm.finished()
    _same(status, by_store)
