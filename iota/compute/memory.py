"""Free memory of a device, and which activation policy fits into it."""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import torch

from iota.model.graph_sizes import Kept
from iota.settings import Activations


def choose(
    device: torch.device, kept: Mapping[Activations, Kept], *, graphs: int, besides: int
) -> Activations:
    """The first policy of `kept` that there is memory for, else RECOMPUTE, the least.

    OFFLOAD is for accelerators: on the CPU it moves nothing out of the way.

    Args:
        graphs: microbatches whose graphs will be held at once, besides those that are held.
        besides: bytes that the device will need for other things.
    """
    here, host = _free(device), psutil.virtual_memory().available
    for policy, need in kept.items():
        if policy is Activations.OFFLOAD and device.type != "cuda":
            continue
        if graphs * need.graph + need.working + besides <= here and graphs * need.host <= host:
            return policy
    return Activations.RECOMPUTE


def _free(device: torch.device) -> int:
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    # Memory that the caching allocator has reserved and does not use is available as well.
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
