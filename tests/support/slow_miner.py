"""A miner whose frames take a random while, each way. Its results must be those of a fast one."""

from __future__ import annotations

import asyncio
import random

import miner.node
from iota.wire.store import StoreTransport
from miner.cli import main as mine

LONGEST_S = 0.15


class SlowTransport(StoreTransport):
    async def send(self, address: str, frame: bytes, deadline_s: float) -> None:
        await asyncio.sleep(random.uniform(0, LONGEST_S))
        await super().send(address, frame, deadline_s)

    async def receive(self, address: str, size: int, deadline_s: float) -> bytes:
        data = await super().receive(address, size, deadline_s)
        await asyncio.sleep(random.uniform(0, LONGEST_S))
        return data


def main() -> None:
    miner.node.StoreTransport = SlowTransport  # type: ignore[misc]
    mine()
