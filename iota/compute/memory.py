"""Which activation policy fits into the free memory of a device."""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import torch

from iota.compute.devices import device_of
from iota.model.graph_sizes import Kept
from iota.settings import Activations


def choose(
    device: torch.device, kept: Mapping[Activations, Kept], *, graphs: int, besides: int
) -> Activations:
    """The first policy of `kept` that there is memory for, else RECOMPUTE, the least.

    OFFLOAD is for accelerators with memory of their own: elsewhere it moves nothing out of the way.

    Args:
        graphs: microbatches whose graphs will be held at once, besides those that are held.
        besides: bytes that the device will need for other things.
    """
    on = device_of(device)
    here, host = on.free_bytes(), psutil.virtual_memory().available
    for policy, need in kept.items():
        if policy is Activations.OFFLOAD and not on.offloads:
            continue
        if graphs * need.graph + need.working + besides <= here and graphs * need.host <= host:
            return policy
    return Activations.RECOMPUTE
