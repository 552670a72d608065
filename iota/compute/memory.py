"""Whether a device has room for one more kept graph."""

from __future__ import annotations

import psutil
import torch

_RESERVE = 2
"""Graphs' worth that stays free: the estimate is rough, and a backward needs room of its own."""


def has_room(device: torch.device, graph_bytes: int) -> bool:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what the caching allocator holds without using is free to us too
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = psutil.virtual_memory().available
    return bool(free > (1 + _RESERVE) * graph_bytes)
