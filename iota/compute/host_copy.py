"""Copies of a state in host memory, taken while the device goes on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from iota.compute.device import Device, Done, Event
from iota.compute.devices import device_of
from iota.compute.state import StageState


class HostCopy:
    """A state in host memory, or on its way there: what later writes to the device must not change."""

    def __init__(self, state: StageState, copied: Event | None = None) -> None:
        """The state is there at `copied`, which the device need not have reached yet; None: it is there."""
        self._state, self._copied = state, copied or Done()

    def hold_back_writes(self, device: torch.device) -> None:
        """Let what is queued on the device from now on wait until the copy is complete."""
        device_of(device).current().wait(self._copied)

    def result(self) -> StageState:
        """Wait for the copy; the state, on the CPU. May be called in any thread."""
        self._copied.synchronize()
        return self._state


def start_copy(
    weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> HostCopy:
    """Start copying the groups of a state, all on one device; `before` may be `weights` itself.

    On a stream of its own, without waiting for the device, where the device can; else at once.
    What writes to the tensors later must first call `hold_back_writes`.
    """
    device = device_of(next(iter(weights.values())).device)
    side = device.stream()
    side.wait(device.current().record())
    for tensors in (weights, moments, before):
        for tensor in tensors.values():
            side.holds(tensor)
    with side.running():
        own = _on_host(device, weights)
        other = own if before is weights else _on_host(device, before)
        state = StageState(own, _on_host(device, moments), other)
    return HostCopy(state, side.record())


def _on_host(device: Device, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: device.to_host(tensor) for name, tensor in tensors.items()}
