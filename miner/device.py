"""The device under this miner: its one thread, how fast it is, and how a flat vector becomes its tensors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import torch

from iota.codec.shapes import Shapes
from iota.outer.partition import Vector
from iota.outer.pseudo_gradient import unflatten

_WIDTH = 512
_REPEATS = 8

P = ParamSpec("P")
T = TypeVar("T")


class DeviceThread:
    """The one thread that computes, where the device's tensors live. Calls run in the order of asking."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="device")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **kwargs))

    def submit(self, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a call that cannot fail, without waiting for it."""
        self._pool.submit(call, *args, **kwargs)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def measured_flops(device: str, threads: int) -> float:
    """FLOP/s of a matrix product on `device`; takes a few hundredths of a second."""
    if device == "cpu":
        torch.set_num_threads(threads)
    x = torch.randn(_WIDTH, _WIDTH, device=device)
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        (x @ x).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * _WIDTH**3 / best


def unflattened(vector: Vector, shapes: Shapes) -> dict[str, Any]:
    """Named tensors over `vector`, in sorted order of name."""
    like = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return unflatten(torch.from_numpy(vector), like)
