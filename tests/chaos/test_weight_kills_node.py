"""The same kills over the real SDK and a loopback node: exactly one extrinsic with weights in its blocks."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from iota.identity.keys import Hotkey, create_hotkey
from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.fixtures import sdk_home
from tests.support.subtensor.node import LoopbackNode
from tests.support.weight_driver import HOTKEY, NETUID, UNDER_WAY, WALLET
from tests.support.weight_lives import MINERS, ROW, live
from validator.weights.plan import Point

__all__ = ["sdk_home"]

BLOCK_S, TEMPO = 0.25, 1000
"""All that these tests write is of one tempo."""
COLDKEY = Hotkey.from_seed(b"\x63" * 32).ss58


@pytest.fixture(params=[False, True], ids=["plain", "commit"])
async def node(request: pytest.FixtureRequest, sdk_home: Path) -> AsyncIterator[LoopbackNode]:
    chain = Subtensor(
        netuid=NETUID,
        tempo=TEMPO,
        weights_rate_limit=2,
        commit_reveal=request.param,
        finality_lag=2,
        block_time_s=BLOCK_S,
    )
    async with LoopbackNode(chain, block_time=BLOCK_S) as node:
        for miner in MINERS:
            chain.enroll(miner.ss58, miner.ss58)
        yield node


def written(node: LoopbackNode, hotkey: str) -> list[int]:
    """Blocks with weights that the hotkey signed."""
    blocks = (node.chain.block(number) for number in range(1, node.chain.head.number + 1))
    return [
        block.number
        for block in blocks
        if block is not None
        for extrinsic in block.extrinsics
        if extrinsic.signer == hotkey and "weights" in extrinsic.call.function
    ]


async def check_one_row(node: LoopbackNode, folder: Path, *kill: str) -> None:
    key = create_hotkey(WALLET, HOTKEY, folder / "wallets")
    node.chain.enroll(key.ss58, COLDKEY, stake=1000, permit=True)
    node.chain.fund(key.ss58, 10)
    killed = await asyncio.to_thread(live, node.url, folder, *kill)
    assert killed.code == -signal.SIGKILL, killed.log
    again = await asyncio.to_thread(live, node.url, folder)
    assert again.code == 0, again.log
    assert written(node, key.ss58) == [again.plans[0]["block"]]
    uid = node.chain.uid(key.ss58)
    row = {node.chain.uid(hotkey): weight for hotkey, weight in ROW.items()}
    if again.plans[0]["mode"] == "commit":
        assert again.plans[0]["state"] == "landed"
        assert (
            node.chain.reveal(key.ss58, {uid: weight for uid, weight in row.items() if uid is not None}) == 1
        )
        for _ in range(2):
            node.chain.make_epoch()
    else:
        assert again.plans[0]["state"] == "in force"
    assert dict(node.chain.value("SubtensorModule", "Weights", (NETUID, uid))) == row


@pytest.mark.parametrize("point", list(Point))
async def test_killed_at_a_point(node: LoopbackNode, tmp_path: Path, point: Point) -> None:
    await check_one_row(node, tmp_path, "--kill", point)


@pytest.mark.parametrize("after_ms", [0, 100, 600])
async def test_killed_while_the_request_is_under_way(
    node: LoopbackNode, tmp_path: Path, after_ms: int
) -> None:
    await check_one_row(node, tmp_path, "--kill", UNDER_WAY, "--after-s", str(after_ms / 1000))
