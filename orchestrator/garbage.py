"""When the garbage collector looks at everything: at chosen times, and never in the middle of an answer.

A full collection stops the process for as long as it takes to look at all objects: about 10 ms for 2,000
members once this module's settings hold, and several times that where the collector begins by itself.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Final

EVERY_S: Final = 600.0
"""Seconds between two full collections. The coordinator makes no cycles; broken connections may."""
_NEVER: Final = 1_000_000_000


def settle() -> None:
    """What is there now stays, such as code and replayed members, and is not looked at again.

    From here on only young objects are collected by themselves.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


async def collect_now_and_then(every_s: float = EVERY_S) -> None:
    """Collect in full every `every_s` seconds, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        gc.collect()
