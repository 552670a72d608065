"""The device under this miner: how fast it is, and how a flat vector becomes its tensors."""

from __future__ import annotations

import time
from typing import Any

import torch

from iota.codec.shapes import Shapes
from iota.outer.partition import Vector
from iota.outer.pseudo_gradient import unflatten

_WIDTH = 512
_REPEATS = 8


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
