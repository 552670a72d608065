"""Copies of a state in host memory, taken while the device goes on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from iota.compute.state import StageState
from iota.compute.transfer import pinned


class HostCopy:
    """A state in host memory, or on its way there: what later writes to the device must not change.

    The device's stream need not have reached `copied` yet; None: the state is there.
    """

    def __init__(self, state: StageState, copied: torch.cuda.Event | None = None) -> None:
        self._state, self._copied = state, copied

    def hold_back_writes(self, device: torch.device) -> None:
        """Let what is queued on the device from now on wait until the copy is complete."""
        if self._copied is not None:
            torch.cuda.current_stream(device).wait_event(self._copied)

    def result(self) -> StageState:
        """Wait for the copy; the state, on the CPU. May be called in any thread."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._state


def start_copy(
    weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> HostCopy:
    """Start copying the groups of a state, all on one device; `before` may be `weights` itself.

    From CUDA to pinned memory on a stream of its own, without waiting for the device; on the CPU at once.
    What writes to the tensors later must first call `hold_back_writes`.
    """
    device = next(iter(weights.values())).device
    if device.type != "cuda":
        return HostCopy(_copied(weights, moments, before))
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    for tensors in (weights, moments, before):
        for tensor in tensors.values():
            tensor.record_stream(side)  # its memory is not given out again before the copy is complete
    with torch.cuda.stream(side):
        state = _copied(weights, moments, before)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(side)
    return HostCopy(state, event)


def _copied(
    weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> StageState:
    own = _on_host(weights)
    return StageState(own, _on_host(moments), own if before is weights else _on_host(before))


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: pinned(t.detach()) if t.is_cuda else t.detach().clone() for n, t in tensors.items()}
