"""What a miner says of itself, for people to look at; nothing is decided by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psutil

from iota.client.conversation import Conversation
from iota.protocol.messages import NodeStatus
from miner.epoch_work import Traffic
from miner.ops import Seconds

EVERY_S = 2.0


async def tell_status(
    talk: Conversation, seconds: Seconds, traffic: Traffic, state: Callable[[], str]
) -> None:
    """Renew the status that goes out with each exchange, until cancelled."""
    process = psutil.Process()
    before, since = traffic.tokens, time.monotonic()
    while True:
        await asyncio.sleep(EVERY_S)
        now = time.monotonic()
        rate, before, since = (traffic.tokens - before) / (now - since), traffic.tokens, now
        talk.status = NodeStatus(
            state=state(),
            tokens_per_second=rate,
            seconds={
                "compute": seconds.compute,
                "serialise": seconds.serialise,
                "transfer": traffic.seconds,
                "wait": traffic.waited,
            },
            memory=process.memory_info().rss,
        )
