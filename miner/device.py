"""This miner's compute device: the one thread that uses it, and a measurement of its speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import torch

_WIDTH = 512
"""Side of the measured matrices: large enough to fill a CPU's cores, small enough to take milliseconds."""
_REPEATS = 8
"""The best of these counts, since the first ones also pay for allocation and warm-up."""

P = ParamSpec("P")
T = TypeVar("T")


class DeviceThread:
    """The only thread that starts work on the device. Calls run in the order in which they are made."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="device")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call on the thread and return its result; raises what the call raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **kwargs))

    def submit(self, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue a call that cannot fail, without waiting for it."""
        self._pool.submit(call, *args, **kwargs)

    def close(self) -> None:
        """Finish the running call, discard the queued ones and end the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def measured_flops(device: str, threads: int) -> float:
    """FLOP/s of an fp32 matrix product on `device`. Takes a few hundredths of a second."""
    torch.set_num_threads(threads)
    x = torch.randn(_WIDTH, _WIDTH, device=device)
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        (x @ x).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * _WIDTH**3 / best
