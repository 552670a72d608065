"""A weight setter over the real ledger in this process, whose blocks come when the setter sleeps."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestServer

from iota.chain import Chain, TxCode, TxResult, open_chain
from iota.chain.ledger.server import make_app
from iota.identity.keys import Hotkey
from iota.protocol.messages import Role
from validator.chain import SubnetChain
from validator.database import Database
from validator.weights.plan import Point, WeightPlan
from validator.weights.setter import WeightSetter

NETUID, TEMPO, BLOCK_S = 9, 20, 12
KEY = Hotkey.from_seed(b"\x01" * 32)
MINERS = tuple(Hotkey.from_seed(bytes([n]) * 32) for n in (2, 3))
SCORES = {MINERS[0].ss58: 0.75, MINERS[1].ss58: 0.25}
RUN = "ab" * 32


class Watched:
    """The real chain; every write of weights is counted, and a test may stand in for any call."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.accepted: list[int] = []
        """Blocks of weights that the chain took."""
        self.attempts = 0
        self.looks = 0
        self.instead: dict[str, Callable[..., Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return self.instead.get(name) or getattr(self.chain, name)

    async def subnet(self, netuid: int) -> Any:
        self.looks += 1
        return await (self.instead.get("subnet") or self.chain.subnet)(netuid)

    async def set_weights(self, *arguments: Any) -> TxResult:
        self.attempts += 1
        instead = self.instead.get("set_weights")
        return await (instead or self.send)(*arguments)

    async def send(self, *arguments: Any) -> TxResult:
        result = await self.chain.set_weights(*arguments)
        if result.code is TxCode.OK:
            assert result.block is not None
            self.accepted.append(result.block)
        return result


class Bench:
    """One validator, its database and its chain. `now_s` moves only when somebody sleeps."""

    chain: Watched
    setter: WeightSetter
    database: Database

    def __init__(self, folder: Path, choices: dict[str, Any]) -> None:
        self.folder, self.choices = folder, choices
        self.started_s = self.now_s = float(int(time.time()))
        self.scores: dict[str, float] = dict(SCORES)
        self.server: TestServer | None = None
        self.port: int | None = None
        self.pauses: list[float] = []
        self.changes: list[WeightPlan] = []

    async def serve(self) -> None:
        app = make_app(self.folder / "ledger.db", clock=lambda: int(self.now_s * 1e9), **self.choices)
        self.server = TestServer(app, port=self.port)
        await self.server.start_server()
        self.port = self.server.port

    async def stop(self) -> None:
        assert self.server is not None
        await self.server.close()

    @contextmanager
    def rows(self) -> Iterator[sqlite3.Connection]:
        """The stopped ledger's database, to change what no call changes."""
        db = sqlite3.connect(self.folder / "ledger.db")
        with db:
            yield db
        db.close()

    async def set_stake(self, stake: float) -> None:
        await self.stop()
        with self.rows() as db:
            db.execute("update neurons set stake = ? where hotkey = ?", (stake, KEY.ss58))
        await self.serve()

    def restart(self) -> None:
        """Another process of the same validator, as after a kill."""
        self.database.close()
        self.open()

    def open(self, burn: float = 0.0, at: Callable[[Point], None] = lambda point: None) -> WeightSetter:
        self.database = Database(self.folder / "database", RUN, KEY.ss58)
        chain: Any = self.chain
        self.setter = WeightSetter(
            SubnetChain(chain, NETUID, KEY.ss58), self.database.weights, lambda: self.scores, burn,
            on_change=self.changes.append, at=at, sleep=self.sleep, clock=lambda: self.now_s, sending_s=20.0,
        )  # fmt: skip
        return self.setter

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.pauses.append(seconds)
        self.now_s += seconds

    async def go(self, blocks: int) -> None:
        """Let the setter work for so many blocks."""
        end = self.now_s + blocks * BLOCK_S
        while self.now_s < end:
            await self.sleep(min(await self.setter.step(), end - self.now_s))

    async def to_next_tempo(self) -> int:
        """Go on to the first block of the next tempo; its index."""
        status = await self.chain.chain.epoch_status(NETUID)
        await self.go(status.next_epoch_block - status.block)
        index: int = (await self.chain.chain.epoch_status(NETUID)).index
        return index

    async def row(self) -> dict[str, int]:
        """The validator's row in force, by hotkey."""
        neurons = (await self.chain.chain.subnet(NETUID)).neurons
        for row in await self.chain.chain.weights(NETUID):
            if row.hotkey == KEY.ss58:
                return {neurons[uid].hotkey: weight for uid, weight in row.weights.items()}
        return {}

    @property
    def states(self) -> list[str]:
        """Of all plans, the oldest first."""
        return [str(shown["state"]) for shown in reversed(self.database.weights.shown(100))]


@asynccontextmanager
async def bench(
    folder: Path, *, registered: bool = True, burn: float = 0.0, **choices: Any
) -> AsyncIterator[Bench]:
    """A subnet with two miners and the validator, past its first rate limit."""
    choices = {"netuid": NETUID, "tempo": TEMPO, "weights_rate_limit": 5, **choices}
    made = Bench(folder, choices)
    await made.serve()
    assert made.server is not None
    url = str(made.server.make_url("/"))
    for key in MINERS:
        async with open_chain(url, key) as chain:
            (await chain.register(NETUID)).check()
    async with open_chain(url, KEY) as chain:
        if registered:
            (await chain.register(NETUID, Role.VALIDATOR)).check()
        made.chain = Watched(chain)
        made.now_s += 6 * BLOCK_S
        made.open(burn)
        try:
            yield made
        finally:
            made.database.close()
            await made.stop()
