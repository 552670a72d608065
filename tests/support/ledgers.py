"""An embedded ledger served in this process, with a clock that the test moves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestServer

from iota.chain.ledger.server import make_app
from iota.identity.keys import Hotkey

NETUID = 9
BLOCK_NS = 12_000_000_000
VALIDATOR = Hotkey.from_seed(b"\x01" * 32)
MINER = Hotkey.from_seed(b"\x02" * 32)
OTHER = Hotkey.from_seed(b"\x03" * 32)


class Clock:
    def __init__(self) -> None:
        self.now_ns = time.time_ns()

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, blocks: int) -> None:
        self.now_ns += blocks * BLOCK_NS


@asynccontextmanager
async def served(path: Path, clock: Callable[[], int] = time.time_ns, **choices: Any) -> AsyncIterator[str]:
    """Without a rate limit of weights, unless one is given."""
    app = make_app(path / "ledger.db", clock=clock, **{"weights_rate_limit": 0, **choices})
    async with TestServer(app) as server:
        yield str(server.make_url("/"))
