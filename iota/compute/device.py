"""What the engine asks of a device besides tensor math: copies beside it, memory, capabilities, a class.

Nothing else asks what kind a device is. `iota.compute.devices` names the kinds; a new one is a class here.
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Protocol

import psutil
import torch
from torch import Tensor


class Event(Protocol):
    """A point in a stream of work."""

    def synchronize(self) -> None:
        """Let the host wait until the stream has reached the point. May be called in any thread."""


class Stream(Protocol):
    """Work of a device, in order. Streams run beside each other where the device can."""

    def record(self) -> Event:
        """The point behind all that was queued so far."""

    def wait(self, event: Event) -> None:
        """Let what is queued from now on wait for an event of the same device. The host goes on."""

    def running(self) -> AbstractContextManager[object]:
        """Inside, this is the device's current stream for this thread."""

    def holds(self, tensor: Tensor) -> None:
        """Keep the tensor's memory from other uses until the stream has reached this point."""


class Done:
    """A point that was reached when it was recorded."""

    def synchronize(self) -> None:
        """See `Event`."""


class HostStream:
    """Work that is complete when the call that began it returns."""

    def record(self) -> Event:
        """See `Stream`."""
        return Done()

    def wait(self, event: Event) -> None:
        """See `Stream`."""

    def running(self) -> AbstractContextManager[object]:
        """See `Stream`."""
        return nullcontext()

    def holds(self, tensor: Tensor) -> None:
        """See `Stream`."""


class Device:
    """One device. As it stands, copies are complete when the call returns; subclasses name what differs."""

    queues: ClassVar[bool] = False
    """Whether work may still be to do when the call that began it returns."""
    offloads: ClassVar[bool] = False
    """Whether host memory is another one than the device's, and copies run while it computes."""
    compiles: ClassVar[bool] = False
    """Whether torch.compile makes layers faster here, where it finds a compiler."""
    repeats: ClassVar[bool] = True
    """Whether an op is known to give the same bits each time. Only then are results compared to the bit."""
    product_dtype: ClassVar[torch.dtype] = torch.bfloat16
    """Of Muon's products: half as wide as fp32, fast, with sums in fp32."""
    widest: ClassVar[torch.dtype] = torch.float64
    """The widest float that it computes in: for means and norms that are to be exact."""
    cached_bytes: ClassVar[int | None] = None
    """Bytes to work on at a time, where caches make that faster than a whole tensor at once."""

    def __init__(self, device: torch.device) -> None:
        self.torch = device

    @classmethod
    def count(cls) -> int:
        """Devices of this kind that torch can use here."""
        return 1

    @property
    def name(self) -> str:
        """What its maker calls it."""
        return platform.machine()

    @property
    def has_bf16(self) -> bool:
        """Whether it computes in bf16."""
        return True

    # ---- copies --------------------------------------------------------------------------------

    def stream(self) -> Stream:
        """A stream for copies beside the ops."""
        return HostStream()

    def current(self) -> Stream:
        """The stream that this thread's ops go to."""
        return HostStream()

    def to_host(self, tensor: Tensor, *, copy: bool = True) -> Tensor:
        """The tensor on the host, complete when the current stream has got here.

        Without `copy` it may be the tensor itself.
        """
        return tensor.detach().to("cpu", copy=copy)

    def to_device(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, complete when its current stream gets here; itself if it is there."""
        return tensor.to(self.torch)

    def fill(self, target: Tensor, source: Tensor) -> None:
        """Copy a result of `to_host` to `target`, complete when the current stream gets here."""
        target.copy_(source)

    def synchronize(self) -> None:
        """Wait for all work of the device."""

    # ---- memory --------------------------------------------------------------------------------

    def own_bytes(self) -> int | None:
        """The device's own memory; None where it is the host's."""
        return None

    def free_bytes(self) -> int:
        """Memory that this process may still take."""
        return int(psutil.virtual_memory().available)

    def release(self) -> None:
        """Give memory back that this process has reserved and does not use."""

    def begin_peak(self) -> None:
        """Measure `peak_bytes` from here on."""

    def peak_bytes(self) -> int | None:
        """The most memory that tensors took since `begin_peak`; None where that is not measured."""
        return None

    # ---- bits ----------------------------------------------------------------------------------

    def make_deterministic(self) -> None:
        """Select kernels that are reproducible from run to run. Call before the first op."""

    def class_name(self, kernels: str, threads: int) -> str:
        """Hardware, kernels (`compiled` or `eager`) and libraries, without the version of torch."""
        simd = torch.backends.cpu.get_cpu_capability()
        return f"cpu/{platform.machine()}/{simd}/t{threads}"


class Cpu(Device):
    """The CPU, whose kernels are reproducible from run to run."""

    cached_bytes = 5 << 19
    """Larger batches of Muon's matrices were a fifth slower, whole tensors were rounded 9 times slower."""
