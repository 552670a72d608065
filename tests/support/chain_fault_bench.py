"""A weight setter over the SDK and a loopback node, whose blocks come as the setter sleeps and writes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from iota.chain import Chain, ChainError, TxResult, Unavailable
from iota.chain.bittensor.client import BittensorChain
from iota.identity.keys import Hotkey
from tests.support.subtensor.chain import ChainBlock, Extrinsic, Subtensor
from tests.support.subtensor.node import LoopbackNode
from validator.chain import SubnetChain
from validator.database import Database
from validator.weights.setter import WeightSetter

NETUID, TEMPO, BLOCK_S = 9, 100, 12
READ_S, WRITE_S = 1.2, 1.2
"""Deadlines of the backend here; everything is on this machine."""
SLACK_S: Final = 2.0
"""What a deadline may be overrun by on a busy machine: the clean-up after it."""
STEP_S: Final = 5 * (READ_S + SLACK_S) + WRITE_S + SLACK_S
"""A step of the setter makes five reads and one write at most."""
SENDING_S: Final = 20.0
SETTLED: Final = 2
"""The tempo in which the faults begin."""
FATE_UNKNOWN: Final = "fate unknown"

VALIDATOR = Hotkey.from_seed(b"\x01" * 32)
MINERS = tuple(Hotkey.from_seed(bytes([n]) * 32) for n in (2, 3))
COLDKEY = Hotkey.from_seed(b"\x63" * 32).ss58
OLD = {MINERS[0].ss58: 65535, MINERS[1].ss58: 65535}
NEW = {MINERS[0].ss58: 65535, MINERS[1].ss58: 21845}
RUN = "ab" * 32

Hook = Callable[["FaultBench"], Awaitable[None]]


class Watched:
    """The backend. A call over its deadline is a TimeoutError, which nobody expects, and ends the test."""

    def __init__(self, chain: Chain, before_write: Callable[[], Awaitable[None]]) -> None:
        self._chain, self._before_write = chain, before_write
        self.kinds: set[str] = set()
        """Of errors, raised or answered: the names of `iota.chain.errors`."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def bounded(*arguments: Any) -> Any:
            writes = name == "set_weights"
            if writes:
                await self._before_write()
            try:
                async with asyncio.timeout((WRITE_S if writes else READ_S) + SLACK_S):
                    answer = await getattr(self._chain, name)(*arguments)
            except ChainError as error:
                self._keep(error)
                raise
            if isinstance(answer, TxResult):
                try:
                    answer.check()
                except ChainError as error:
                    self._keep(error)
            return answer

        return bounded

    def _keep(self, error: ChainError) -> None:
        unknown = isinstance(error, Unavailable) and error.fate_unknown
        self.kinds.add(FATE_UNKNOWN if unknown else type(error).__name__)


class FaultBench:
    """One validator, its database and its node. `now_s` moves when blocks come, and blocks when it moves."""

    setter: WeightSetter
    database: Database

    def __init__(self, node: LoopbackNode) -> None:
        self.node, self.model = node, node.chain
        self.now_s = 0.0
        self.lost: tuple[Extrinsic, ...] = ()
        """What a reorganisation took away."""
        self.rows: list[dict[str, int]] = []
        """All that were ever in force, by hotkey."""
        self.scores = {hotkey: float(weight) for hotkey, weight in OLD.items()}
        self.when_looked: Hook | None = None
        """Runs once, between a look at the chain and the write that follows from it."""
        self.when_pooled: Hook = FaultBench.land
        """What becomes of a write that waits in the pool."""

    def open(self, chain: BittensorChain, folder: Path) -> None:
        self.chain = Watched(chain, self._looked)
        self.database = Database(folder, RUN, VALIDATOR.ss58)
        watched: Any = self.chain
        self.setter = WeightSetter(
            SubnetChain(watched, NETUID, VALIDATOR.ss58), self.database.weights, lambda: self.scores, 0.0,
            sleep=self.sleep, clock=lambda: self.now_s, sending_s=SENDING_S,
        )  # fmt: skip

    # ---- time ------------------------------------------------------------------------------------

    async def advance(self, blocks: int) -> None:
        self.now_s += blocks * BLOCK_S
        for _ in range(blocks):
            await self.node.advance()
            if (row := self.row()) not in self.rows:
                self.rows.append(row)

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        assert seconds % BLOCK_S == 0
        await self.advance(int(seconds // BLOCK_S))

    async def step(self) -> float:
        """One step of the setter, while the block author works."""
        author = asyncio.create_task(self._author())
        try:
            async with asyncio.timeout(STEP_S):
                return await self.setter.step()
        finally:
            author.cancel()
            await asyncio.wait([author])
            if not author.cancelled():
                author.result()

    async def go(self, blocks: int) -> None:
        """Let the setter work for so many blocks."""
        end = self.now_s + blocks * BLOCK_S
        while self.now_s < end:
            pause = await self.step()
            if self.now_s < end:
                await self.sleep(min(pause, end - self.now_s))

    async def land(self) -> None:
        """Blocks until what waits is final; the beacon opens what is time-locked."""
        await self.advance(self.model.finality_lag + 1)
        (plan,) = self.database.weights.newest(self.genesis, 1)
        self.model.reveal(VALIDATOR.ss58, plan.row)

    async def _author(self) -> None:
        await self.node.pooled()
        await self.when_pooled(self)

    async def _looked(self) -> None:
        hook, self.when_looked = self.when_looked, None
        if hook is not None:
            await hook(self)

    # ---- what is so ------------------------------------------------------------------------------

    @property
    def genesis(self) -> str:
        first = self.model.block(0)
        assert first is not None
        return first.hash

    @property
    def states(self) -> list[str]:
        """Of all plans, the oldest first."""
        return [str(shown["state"]) for shown in reversed(self.database.weights.shown(100))]

    def tempo(self, at: str | None = None) -> int:
        return int(self.model.value("SubtensorModule", "SubnetEpochIndex", (NETUID,), at))

    def row(self) -> dict[str, int]:
        """The validator's row in force, by hotkey."""
        row = self.model.value("SubtensorModule", "Weights", (NETUID, self.model.uid(VALIDATOR.ss58))) or []
        hotkeys = {self.model.uid(miner.ss58): miner.ss58 for miner in MINERS}
        return {hotkeys[uid]: weight for uid, weight in row}

    def written(self) -> Counter[int]:
        """How many writes of weights by this hotkey the chain has accepted, by tempo."""
        blocks = (self.model.block(number) for number in range(self.model.head.number + 1))
        return Counter(self.tempo(block.hash) for block in blocks if block for _ in _accepted_in(block))


def _accepted_in(block: ChainBlock) -> list[Extrinsic]:
    done = {event.extrinsic_index for event in block.events if event.name == "ExtrinsicSuccess"}
    return [
        each
        for index, each in enumerate(block.extrinsics)
        if index in done and each.signer == VALIDATOR.ss58 and "weights" in each.call.function
    ]


@asynccontextmanager
async def fault_bench(folder: Path, **settings: Any) -> AsyncIterator[FaultBench]:
    """A validator whose old weights are in force and whose new ones are due."""
    model = Subtensor(netuid=NETUID, **{"tempo": TEMPO, "weights_rate_limit": 5, **settings})
    for miner in MINERS:
        model.enroll(miner.ss58, COLDKEY)
    model.enroll(VALIDATOR.ss58, COLDKEY, stake=1000, permit=True)
    async with (
        LoopbackNode(model) as node,
        BittensorChain(node.url, VALIDATOR, timeout_s=READ_S, write_timeout_s=WRITE_S) as chain,
    ):
        bench = FaultBench(node)
        bench.open(chain, folder)
        try:
            while bench.row() != OLD or bench.tempo() < SETTLED:
                await bench.go(1)
            await bench.advance(model.finality_lag)
            bench.scores = {hotkey: float(weight) for hotkey, weight in NEW.items()}
            bench.chain.kinds.clear()
            yield bench
        finally:
            bench.database.close()
