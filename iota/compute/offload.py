"""Saved tensors in host memory: they leave while the device goes on, and come back ahead of the backward.

Copies wait for the device's stream and run beside it, in each direction on a stream of its own. When a
layer has run, the copies of the layer before are waited for (by the device, not by the host), and their
memory is free; when a layer's backward begins, the layer before it starts coming back. So two layers'
tensors are on the device at a time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from iota.compute.device import Done, Event
from iota.compute.devices import device_of

Held = Callable[[], Tensor]
"""A saved tensor, wherever it is: the call brings it to the device. Called once as a rule."""
_SMALL_BYTES: Final = 1 << 10
"""Tensors below stay on the device: a transfer costs more than their memory."""


class Lane:
    """Copies of bytes between a device and the host, on a stream for each direction.

    Nothing here makes the host wait, where the device has streams.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device_of(device)
        self._out, self._back = self.device.stream(), self.device.stream()

    def send(self, here_N: Tensor) -> Tensor:
        """Start a copy to the host; `here_N` must stay until the device has waited for a later `sent`."""
        self._out.wait(self.device.current().record())
        with self._out.running():
            return self.device.to_host(here_N)

    def sent(self) -> Event:
        """A mark behind all that was sent."""
        return self._out.record()

    def fetch(self, there: Sequence[Tensor], sent: Event) -> tuple[list[Tensor], Event]:
        """Start copies to the device behind the mark `sent`. They are complete at the returned mark."""
        # From the pool of the device's stream, which may use this memory up to here.
        here = [torch.empty_like(tensor, device=self.device.torch) for tensor in there]
        self._back.wait(self.device.current().record())
        self._back.wait(sent)
        with self._back.running():
            for target, source in zip(here, there, strict=True):
                self.device.fill(target, source)
        return here, self._back.record()

    def hold(self, mark: Event) -> None:
        """Let the device wait for a mark before what is queued from now on."""
        self.device.current().wait(mark)


class Offload:
    """The offloaded layers of a stage's passes, on one lane."""

    def __init__(self, device: torch.device, lane: Lane | None = None) -> None:
        self.lane = lane or Lane(device)
        self._newest: weakref.ref[OffloadedLayer] | None = None
        """The layer that has run last. Its tensors are still on the device."""
        self._coming: OffloadedLayer | None = None
        """Referenced so that its memory is not given out again before the copies are complete."""

    def begin(self, constants: Iterable[Tensor]) -> Callable[[], OffloadedLayer]:
        """A pass; the call begins its next layer. `constants` are not moved."""
        stay = frozenset(tensor.untyped_storage().data_ptr() for tensor in constants)
        before: OffloadedLayer | None = None

        def next_layer() -> OffloadedLayer:
            nonlocal before
            before = OffloadedLayer(self, stay, before)
            return before

        return next_layer

    def ran(self, layer: OffloadedLayer) -> None:
        """A layer's forward has run."""
        self._make_room()
        self._newest = weakref.ref(layer)

    def comes(self, layer: OffloadedLayer) -> None:
        """A layer's tensors are about to come back."""
        if self._coming is not None:
            self._coming.wait()
        self._coming = layer
        self._make_room()

    def came(self, layer: OffloadedLayer) -> None:
        """The device waits for the layer's tensors before what is queued from now on."""
        if self._coming is layer:
            self._coming = None

    def _make_room(self) -> None:
        newest, self._newest = self._newest() if self._newest else None, None
        if newest is not None:
            newest.leave()


@dataclass
class _Moved:
    """One storage."""

    there_N: Tensor
    here_N: Tensor | None
    uses: int = 0


class OffloadedLayer:
    """The saved tensors of one layer of a pass; see `iota.compute.activations.Shelf`."""

    def __init__(self, offload: Offload, stay: frozenset[int], before: OffloadedLayer | None) -> None:
        self._offload, self._stay, self._before = offload, stay, before
        self._device = offload.lane.device.torch.type
        self._moved: dict[int, _Moved] = {}
        """By address while the layer runs: each storage is moved once."""
        self._parts: list[_Moved] = []
        self._sent: Event = Done()
        self._fetched: Event = Done()
        self._away = self._used = self._awaited = False

    def put(self, tensor: Tensor) -> Held:
        """Start moving what a view shows, unless it is small, a constant, or on another device."""
        storage, kept = tensor.untyped_storage(), tensor.detach()
        at = storage.data_ptr()
        if at in self._stay or storage.nbytes() < _SMALL_BYTES or tensor.device.type != self._device:
            return lambda: kept
        moved = self._moved.get(at)
        if moved is None:
            here_N = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
            moved = self._moved[at] = _Moved(self._offload.lane.send(here_N), here_N)
            self._parts.append(moved)
        moved.uses += 1
        return partial(
            self._take, moved, tensor.dtype, int(tensor.storage_offset()), tensor.size(), tensor.stride()
        )

    def close(self) -> None:
        """The layer's forward has run."""
        self._moved.clear()
        self._sent = self._offload.lane.sent()
        self._offload.ran(self)

    def leave(self) -> None:
        """Give the device's memory back, unless the backward uses it already."""
        if not self._used:
            self._offload.lane.hold(self._sent)
            self._away = True
            for moved in self._parts:
                moved.here_N = None

    def fetch(self) -> None:
        """Start coming back, if it is not on the device."""
        if not self._away:
            return
        self._away, self._awaited = False, True
        self._offload.comes(self)
        lane = self._offload.lane
        here, self._fetched = lane.fetch([moved.there_N for moved in self._parts], self._sent)
        for moved, here_N in zip(self._parts, here, strict=True):
            moved.here_N = here_N

    def wait(self) -> None:
        """Let the device wait until the tensors are there."""
        if self._awaited:
            self._awaited = False
            self._offload.lane.hold(self._fetched)
            self._offload.came(self)

    def _take(
        self, moved: _Moved, dtype: torch.dtype, offset: int, size: torch.Size, stride: tuple[int, ...]
    ) -> Tensor:
        if not self._used:
            self._used = True
            self.fetch()
            self.wait()
            before, self._before = self._before, None
            if before is not None:
                before.fetch()
        here_N = moved.here_N
        assert here_N is not None, "a saved tensor is taken as often as it was put"
        moved.uses -= 1
        if not moved.uses:
            moved.here_N = None
        view = torch.empty(0, dtype=dtype, device=here_N.device)
        return view.set_(here_N.untyped_storage(), offset, size, stride)
