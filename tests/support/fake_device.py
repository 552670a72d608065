"""An accelerator that is made up on the CPU: its copies are as late as they may be, and it has no float64.

A copy of the current stream takes its source at once, as a queue that is in order would, and the host has it
when it waits for an event behind it. One of a stream beside takes its source when an event behind it is
waited for: who writes to the source before, or lets go of its memory, has another copy. What is not there
yet is all ones, a NaN in every float.

    with on_fake_device() as device: ...       # Engine(spec, stage, device="cpu") runs on it
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from iota.compute import devices
from iota.compute.device import Device
from iota.compute.devices import KINDS, device_of

Work = Callable[[], None]


class FakeEvent:
    """A point in a fake stream: what was queued before it is done when it is waited for."""

    def __init__(self, stream: FakeStream, count: int) -> None:
        self.stream, self.count = stream, count

    def synchronize(self) -> None:
        """See `Event`."""
        self.stream.run_until(self.count)


class FakeStream:
    """A queue of copies. The current stream's ops run at once, since torch's own do."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._queue: list[Work] = []
        self._done = 0
        self._lock = threading.RLock()
        self.held: list[Tensor] = []
        """Tensors whose memory the stream keeps until it has done all."""

    def record(self) -> FakeEvent:
        """See `Stream`."""
        return FakeEvent(self, self._done + len(self._queue))

    def wait(self, event: object) -> None:
        """See `Stream`."""
        assert isinstance(event, FakeEvent), "an event of another kind of device"
        if event.stream is self:
            return
        if self is self._device.main:
            event.synchronize()  # its next op runs at once
        elif event.stream is not self._device.main:
            self.queue(event.synchronize)

    @contextmanager
    def running(self) -> Iterator[None]:
        """See `Stream`."""
        before, self._device.now = self._device.now, self
        try:
            yield
        finally:
            self._device.now = before

    def holds(self, tensor: Tensor) -> None:
        """See `Stream`."""
        self.held.append(tensor)

    def queue(self, work: Work) -> None:
        """Do it after all that is queued, when somebody waits for it."""
        with self._lock:
            self._queue.append(work)

    def run_until(self, count: int) -> None:
        """Do what is queued up to a place."""
        with self._lock:
            while self._done < count:
                self._queue.pop(0)()
                self._done += 1
            if not self._queue:
                self.held.clear()


class FakeDevice(Device):
    """See the module. It stands in the place of the CPU."""

    offloads = True
    memory = 1 << 40
    """Bytes that it has."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.main = FakeStream(self)
        self.now = self.main
        self._pinned: list[StorageWeakRef] = []
        self.copies, self.released = 0, 0

    def stream(self) -> FakeStream:
        """See `Device`."""
        return FakeStream(self)

    def current(self) -> FakeStream:
        """See `Device`."""
        return self.now

    def to_host(self, tensor: Tensor, *, copy: bool = True) -> Tensor:
        """See `Device`."""
        if tensor.dtype is torch.float64:
            return tensor  # of `exact_mean`, on the host
        there = _blank(tensor)
        self._pinned.append(StorageWeakRef(there.untyped_storage()))
        self._queue_copy(there, tensor.detach())
        return there

    def to_device(self, tensor: Tensor) -> Tensor:
        """See `Device`."""
        return tensor.clone()

    def fill(self, target: Tensor, source: Tensor) -> None:
        """See `Device`. Raises AssertionError for memory that is not pinned."""
        pinned = {ref.cdata for ref in self._pinned if not ref.expired()}
        assert StorageWeakRef(source.untyped_storage()).cdata in pinned, "a copy from memory not pinned"
        target.view(torch.uint8).fill_(0xFF)
        self._queue_copy(target, source)

    def exact_mean(self, values: Tensor) -> Tensor:
        """See `Device`. On the host."""
        with torch.utils._python_dispatch._disable_current_modes():
            return values.double().mean()

    def own_bytes(self) -> int:
        """See `Device`."""
        return self.memory

    def free_bytes(self) -> int:
        """See `Device`."""
        return self.memory

    def release(self) -> None:
        """See `Device`."""
        self.released += 1

    def _queue_copy(self, target: Tensor, source: Tensor) -> None:
        self.copies += 1
        if self.now is self.main:
            taken = source.clone()
            self.now.queue(lambda: _copy(target, taken))
            return
        memory = StorageWeakRef(source.untyped_storage())
        place = (source.dtype, source.storage_offset(), source.size(), source.stride())

        def late() -> None:
            storage: Any = torch.UntypedStorage._new_with_weak_ptr(memory.cdata)
            if storage is not None:
                dtype, *view = place
                _copy(target, torch.empty(0, dtype=dtype).set_(storage, *view))

        self.now.queue(late)


class NoFloat64(TorchDispatchMode):
    """Refuses ops with float64 tensors."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        assert not (isinstance(made, Tensor) and made.dtype is torch.float64), f"{func} gives float64"
        return made


@contextmanager
def on_fake_device(kind: type[FakeDevice] = FakeDevice) -> Iterator[FakeDevice]:
    """Inside, torch's CPU is behind a fake device for this process, and this thread computes no float64."""
    device_of.cache_clear()
    with patch.dict(KINDS, cpu=kind), NoFloat64():
        found = devices.device_of(torch.device("cpu"))
        assert isinstance(found, FakeDevice)
        yield found
    device_of.cache_clear()


def _blank(tensor: Tensor) -> Tensor:
    """Memory of a tensor's form, all ones."""
    made = torch.empty_like(tensor, requires_grad=False)
    torch.empty(0, dtype=torch.uint8).set_(made.untyped_storage()).fill_(0xFF)
    return made


def _copy(target: Tensor, source: Tensor) -> None:
    with torch.no_grad():
        target.copy_(source)
