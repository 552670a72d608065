"""The chains that the contract suite runs over: one protocol, a class for each backend.

A new backend is one more entry in `BACKENDS`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from aiohttp.test_utils import TestServer

from iota.chain import Chain, TxResult, open_chain
from iota.chain.bittensor.client import BittensorChain
from iota.chain.ledger.server import make_app
from iota.identity.coldkey import Coldkey
from iota.identity.keys import Hotkey
from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.memory import MemorySubstrate
from tests.support.subtensor.node import LoopbackNode

NETUID = 9
TEMPO = 20
RATE_LIMIT = 10
REVEAL_BLOCKS = 5
STAKE = 1000.0
RICH = 100.0
"""TAO of every coldkey here."""


class Network(Protocol):
    """A fresh chain with one subnet, whose blocks come when the test says so."""

    async def connect(self, hotkey: Hotkey | None = None) -> Chain:
        """A connection; with a hotkey, also with a coldkey that can pay for its registration."""
        ...

    async def advance(self, blocks: int) -> None:
        """Both the newest and the finalized block move on by so many."""
        ...

    def permit(self, hotkey: Hotkey) -> None:
        """Stake, and with it a validator's permit, for a hotkey that registered as a validator."""
        ...

    async def reveal(self, hotkey: Hotkey, result: TxResult, weights: Mapping[int, int]) -> None:
        """Lets the time pass after which hidden weights are revealed; those of the beacon held `weights`."""
        ...


Opener = Callable[[Path, bool], AbstractAsyncContextManager[Network]]
"""Opens a network; the flag says whether weights are hidden at first."""


class LedgerNetwork:
    """The embedded ledger, served in this process over loopback."""

    def __init__(self, stack: AsyncExitStack, path: Path, hiding: bool) -> None:
        self._stack, self._path, self._hiding = stack, path, hiding
        self._now_ns = time.time_ns()
        self._url = ""

    async def start(self) -> None:
        app = make_app(
            self._path / "ledger.db",
            clock=lambda: self._now_ns,
            netuid=NETUID,
            tempo=TEMPO,
            weights_rate_limit=RATE_LIMIT,
            reveal_blocks=REVEAL_BLOCKS if self._hiding else 0,
            faucet_stake=STAKE,
        )
        server = await self._stack.enter_async_context(TestServer(app))
        self._url = str(server.make_url("/"))

    async def connect(self, hotkey: Hotkey | None = None) -> Chain:
        return await self._stack.enter_async_context(open_chain(self._url, hotkey))

    async def advance(self, blocks: int) -> None:
        self._now_ns += blocks * 12_000_000_000

    def permit(self, hotkey: Hotkey) -> None:
        """The faucet has staked it."""

    async def reveal(self, hotkey: Hotkey, result: TxResult, weights: Mapping[int, int]) -> None:
        assert result.block is not None
        assert result.reveal_round == result.block + REVEAL_BLOCKS
        await self.advance(REVEAL_BLOCKS + 1)


class SubtensorNetwork:
    """The Bittensor backend and the real SDK over a model of a subtensor chain."""

    def __init__(self, stack: AsyncExitStack, hiding: bool) -> None:
        self._stack = stack
        self.chain = Subtensor(
            netuid=NETUID,
            tempo=TEMPO,
            weights_rate_limit=RATE_LIMIT,
            commit_reveal=hiding,
            serving_rate_limit=0,
        )

    def coldkey(self, hotkey: Hotkey | None) -> Coldkey | None:
        """One that is funded, and always the same for a hotkey."""
        if hotkey is None:
            return None
        seed = hashlib.sha256(hotkey.ss58.encode()).digest()
        coldkey = Coldkey(Hotkey.from_seed(seed).keypair)
        self.chain.fund(coldkey.ss58, RICH)
        return coldkey

    def permit(self, hotkey: Hotkey) -> None:
        self.chain.stake(hotkey.ss58, STAKE)
        self.chain.permit(hotkey.ss58)

    async def advance(self, blocks: int) -> None:
        self.chain.make_block(blocks)

    async def reveal(self, hotkey: Hotkey, result: TxResult, weights: Mapping[int, int]) -> None:
        assert self.chain.reveal(hotkey.ss58, weights) == 1
        await self.advance(2 * TEMPO)


class MemoryNetwork(SubtensorNetwork):
    """In memory: the SDK's client, intents and policy, and nothing on a wire."""

    async def connect(self, hotkey: Hotkey | None = None) -> Chain:
        return await self._stack.enter_async_context(
            BittensorChain(
                "local",
                hotkey,
                coldkey=self.coldkey(hotkey),
                make_substrate=partial(MemorySubstrate, self.chain),
            )
        )


class LoopbackNetwork(SubtensorNetwork):
    """Over a websocket: transport, codec, signatures and nonces as well."""

    async def start(self) -> None:
        self._node = await self._stack.enter_async_context(LoopbackNode(self.chain, instant=True))

    async def connect(self, hotkey: Hotkey | None = None) -> Chain:
        chain = open_chain(self._node.url, hotkey, coldkey=self.coldkey(hotkey))
        return await self._stack.enter_async_context(chain)

    async def advance(self, blocks: int) -> None:
        await self._node.advance(blocks)


@asynccontextmanager
async def ledger(path: Path, hiding: bool) -> AsyncIterator[Network]:
    async with AsyncExitStack() as stack:
        network = LedgerNetwork(stack, path, hiding)
        await network.start()
        yield network


@asynccontextmanager
async def memory(path: Path, hiding: bool) -> AsyncIterator[Network]:
    async with AsyncExitStack() as stack:
        yield MemoryNetwork(stack, hiding)


@asynccontextmanager
async def loopback(path: Path, hiding: bool) -> AsyncIterator[Network]:
    async with AsyncExitStack() as stack:
        network = LoopbackNetwork(stack, hiding)
        await network.start()
        yield network


BACKENDS: dict[str, Opener] = {"ledger": ledger, "memory": memory, "loopback": loopback}
