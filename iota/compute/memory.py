"""Free memory of a device, for `Recompute.AUTO`."""

from __future__ import annotations

import psutil
import torch

_RESERVE = 2
"""Graphs for which memory stays free: sizes are estimates, and a backward needs memory of its own."""


def has_room(device: torch.device, graph_bytes: int) -> bool:
    """Whether `device` has memory to keep one more graph of `graph_bytes`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that the caching allocator has reserved and does not use is available as well.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = psutil.virtual_memory().available
    return bool(free > (1 + _RESERVE) * graph_bytes)
