"""The status sent with each exchange. Informational only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import psutil

from iota.client.conversation import Conversation
from iota.protocol.messages import NodeStatus
from miner.activity import Activity

EVERY_S: Final = 2.0
"""Also the window of the reported rate."""


async def report_status(talk: Conversation, activity: Activity, state: Callable[[], str]) -> None:
    """Refresh `talk.status` until cancelled. `state` gives the core's state in a few words."""
    process = psutil.Process()
    before, since = activity.tokens, time.monotonic()
    while True:
        await asyncio.sleep(EVERY_S)
        now = time.monotonic()
        rate, before, since = (activity.tokens - before) / (now - since), activity.tokens, now
        talk.status = NodeStatus(
            state=state(),
            tokens_per_second=rate,
            seconds={
                "compute": activity.compute_s,
                "serialise": activity.serialise_s,
                "transfer": activity.transfer_s,
                "wait": activity.wait_s,
            },
            memory=process.memory_info().rss,
        )
