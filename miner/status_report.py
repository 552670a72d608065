"""The status sent with each exchange, and the miner's line in its log. Informational only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import psutil

from iota.client.conversation import Conversation
from iota.protocol.messages import NodeStatus
from miner.activity import Activity
from miner.progress_line import Position, ProgressLines

log = logging.getLogger(__name__)

EVERY_S: Final = 2.0
"""Also the window of the reported rate."""


async def report_status(talk: Conversation, activity: Activity, position: Callable[[], Position]) -> None:
    """Refresh `talk.status`, and log a line when one is due, until cancelled.

    `position` gives the replica's place in the run.
    """
    process = psutil.Process()
    before, since = activity.tokens, time.monotonic()
    lines = ProgressLines(since)
    while True:
        await asyncio.sleep(EVERY_S)
        now = time.monotonic()
        rate, before, since = (activity.tokens - before) / (now - since), activity.tokens, now
        here = position()
        if (text := lines.look(now, here, activity)) is not None:
            log.info("%s", text)
        talk.status = NodeStatus(
            state=here.state,
            tokens_per_second=rate,
            seconds={
                "compute": activity.compute_s,
                "serialise": activity.serialise_s,
                "transfer": activity.transfer_s,
                "wait": activity.wait_s,
            },
            memory=process.memory_info().rss,
        )
