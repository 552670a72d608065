"""What the tests of the Bittensor backend share: keys, and chains over a loopback node or in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import bittensor_core as core

from iota.chain.bittensor.client import BittensorChain
from iota.identity.coldkey import Coldkey
from iota.identity.keys import Hotkey
from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.memory import MemorySubstrate
from tests.support.subtensor.node import LoopbackNode

NETUID = 9
VALIDATOR = Hotkey.from_seed(b"\x01" * 32)
MINER = Hotkey.from_seed(b"\x02" * 32)
COLDKEY = Coldkey(core.Keypair.create_from_seed(b"\x07" * 32, core.CRYPTO_SR25519))
READ_S = 1.0
"""Deadline of a read here, and of a write where the node is broken."""
WRITE_S = 10.0


def subtensor(**settings: Any) -> Subtensor:
    """A chain with a rich coldkey, whose validator has uid 1 and whose miner has uid 2."""
    chain = Subtensor(netuid=NETUID, **settings)
    chain.fund(COLDKEY.ss58, 100)
    chain.enroll(VALIDATOR.ss58, COLDKEY.ss58, stake=1000, permit=True)
    chain.enroll(MINER.ss58, COLDKEY.ss58)
    return chain


def over_node(
    node: LoopbackNode, hotkey: Hotkey | None = None, *, write_s: float = WRITE_S, **options: Any
) -> BittensorChain:
    options = {"coldkey": COLDKEY, "timeout_s": READ_S, **options}
    return BittensorChain(node.url, hotkey, write_timeout_s=write_s, **options)


def in_memory(chain: Subtensor, hotkey: Hotkey | None = None, **options: Any) -> BittensorChain:
    return BittensorChain(
        "local",
        hotkey,
        coldkey=COLDKEY,
        timeout_s=READ_S,
        write_timeout_s=WRITE_S,
        make_substrate=lambda: MemorySubstrate(chain, **options),
    )


def calls_of(chain: Subtensor, signer: str) -> list[str]:
    """The calls in blocks that a key has signed, in their order."""
    blocks = (chain.block(number) for number in range(chain.head.number + 1))
    return [
        extrinsic.call.function
        for block in blocks
        if block is not None
        for extrinsic in block.extrinsics
        if extrinsic.signer == signer
    ]


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds, which it must within ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the node has no event for everything
            await asyncio.sleep(0.005)
