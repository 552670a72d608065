"""The class of devices whose results are equal to the bit."""

from __future__ import annotations

import torch

from iota.compute.compiled import is_compiled
from iota.compute.devices import device_of


def device_class(device: str | torch.device, threads: int) -> str:
    """Name of the device's class: hardware, kernels, threads (CPU) and torch version.

    Devices of one class give bitwise equal results of an op, if their kind `repeats` its bits at all.
    """
    target = torch.device(device)
    kernels = "compiled" if is_compiled(target) else "eager"
    version = torch.__version__.split("+")[0]
    return f"{device_of(target).class_name(kernels, threads)}/torch{version}"
