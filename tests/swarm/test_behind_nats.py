"""Swarms of real processes whose miners are behind NATs, on an emulated internet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.emulated_internet import MISSING, PER_MBPS, EmulatedInternet, Nat, Shape
from tests.support.internet.namespaces import entered
from tests.support.live_swarm import tiny
from tests.support.paced_engine import Pace
from tests.support.wan_swarms import WanSwarm, frames_by_way

pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"an emulated internet {MISSING}")
HOME = Shape(50 * PER_MBPS, delay_s=0.005)
PACE = Pace(0.05, 0.15, 0.1, 0.02)
PORT = 9001


async def test_miners_behind_nats_train_by_iroh_and_through_the_store_once_udp_is_blocked(
    tmp_path: Path,
) -> None:
    """They are told nothing: each learns its address from the orchestrator, and both dial at once."""
    async with EmulatedInternet() as internet:
        server = await internet.host("server")
        homes = {
            name: await internet.host(name, behind=Nat.PORT_RESTRICTED, up=HOME, down=HOME)
            for name in ("miner-00", "miner-01")
        }
        flags = dict.fromkeys(homes, ("--transport", "auto", "--listen", f"0.0.0.0:{PORT}"))
        options = tiny(stages=2, epochs=1, steps_per_epoch=20)
        with entered(server.namespace):
            async with WanSwarm(tmp_path, options, server, homes, PACE, flags=flags) as swarm:
                await swarm.until(lambda s: frames_by_way(tmp_path)["kept"] > 0)
                await homes["miner-00"].block_udp()
                status = await swarm.finished()
        ways = frames_by_way(tmp_path)
        assert min(ways["kept"], ways["stored"]) > 0
        assert (status["dropped"], status["rerouted"]) == (0, 0)
