"""Apple's GPUs. Their memory is the host's, and they have no float64.

Not run on one: torch promises neither which kernels repeat their bits nor that copies wait for events of
another thread. So copies are complete when the call returns, and results are compared within tolerances.
"""

from __future__ import annotations

import platform

import torch

from iota.compute.device import Device


class Mps(Device):
    """A Metal device."""

    repeats = False
    queues = True
    widest = torch.float32

    @classmethod
    def count(cls) -> int:
        """See `Device`."""
        return torch.mps.device_count() if torch.backends.mps.is_available() else 0

    @property
    def name(self) -> str:
        """See `Device`."""
        return torch.backends.mps.get_name()

    @property
    def has_bf16(self) -> bool:
        """See `Device`. Metal has bf16 from macOS 14 on."""
        return torch.backends.mps.is_macos_or_newer(14, 0)

    def synchronize(self) -> None:
        """See `Device`."""
        torch.mps.synchronize()

    def own_bytes(self) -> int:
        """See `Device`. A part of the host's memory, as much as Metal advises to take."""
        return torch.mps.recommended_max_memory()

    def free_bytes(self) -> int:
        """See `Device`."""
        left = self.own_bytes() - torch.mps.current_allocated_memory()
        return max(0, min(left, super().free_bytes()))

    def release(self) -> None:
        """See `Device`."""
        torch.mps.empty_cache()

    def class_name(self, kernels: str, threads: int) -> str:
        """See `Device`. Kernels come with the system."""
        return f"mps/{self.name}/{kernels}/macos{platform.mac_ver()[0]}"
