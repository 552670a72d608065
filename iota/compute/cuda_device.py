"""NVIDIA GPUs: pinned memory, a stream for each direction of copies, compiled layers."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from iota.compute.device import Device, Event


class CudaStream:
    """A CUDA stream; see `Stream`."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def record(self) -> Event:
        """See `Stream`."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def wait(self, event: Event) -> None:
        """See `Stream`."""
        assert isinstance(event, torch.cuda.Event)
        self._stream.wait_event(event)

    def running(self) -> AbstractContextManager[object]:
        """See `Stream`."""
        return torch.cuda.stream(self._stream)

    def holds(self, tensor: Tensor) -> None:
        """See `Stream`."""
        tensor.record_stream(self._stream)


class Cuda(Device):
    """A CUDA device."""

    queues = True
    offloads = True
    compiles = True
    product_dtype = torch.float16

    @classmethod
    def count(cls) -> int:
        """See `Device`."""
        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    @property
    def name(self) -> str:
        """See `Device`."""
        return torch.cuda.get_device_name(self.torch)

    def stream(self) -> CudaStream:
        """See `Device`."""
        return CudaStream(torch.cuda.Stream(self.torch))  # type: ignore[no-untyped-call]

    def current(self) -> CudaStream:
        """See `Device`."""
        return CudaStream(torch.cuda.current_stream(self.torch))

    def to_host(self, tensor: Tensor, *, copy: bool = True) -> Tensor:
        """See `Device`. The copy is in pinned memory: into other memory the host would wait for it."""
        here = torch.empty_like(tensor, device="cpu", pin_memory=True, requires_grad=False)
        return here.copy_(tensor.detach(), non_blocking=True)

    def to_device(self, tensor: Tensor) -> Tensor:
        """See `Device`."""
        if not tensor.is_cuda:
            tensor = tensor.pin_memory()
        return tensor.to(self.torch, non_blocking=True)

    def fill(self, target: Tensor, source: Tensor) -> None:
        """See `Device`."""
        target.copy_(source, non_blocking=True)

    def synchronize(self) -> None:
        """See `Device`."""
        torch.cuda.synchronize(self.torch)

    def own_bytes(self) -> int:
        """See `Device`."""
        return int(torch.cuda.mem_get_info(self.torch)[1])

    def free_bytes(self) -> int:
        """See `Device`. What the caching allocator has reserved and does not use is free as well."""
        free, _ = torch.cuda.mem_get_info(self.torch)
        return int(free + torch.cuda.memory_reserved(self.torch) - torch.cuda.memory_allocated(self.torch))

    def release(self) -> None:
        """See `Device`."""
        torch.cuda.empty_cache()

    def begin_peak(self) -> None:
        """See `Device`."""
        torch.cuda.reset_peak_memory_stats(self.torch)

    def peak_bytes(self) -> int:
        """See `Device`."""
        return torch.cuda.max_memory_allocated(self.torch)

    def make_deterministic(self) -> None:
        """See `Device`."""
        # cuBLAS is reproducible only with a fixed workspace, which is set by this variable only.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
        # With it on, torch also fills every new tensor with NaN, a write as large as the results themselves.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32 = False
        # Muon's products are in fp16 with sums in fp32 (`iota.compute.polar`).
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

    def class_name(self, kernels: str, threads: int) -> str:
        """See `Device`."""
        return f"cuda/{self.name}/{kernels}/cuda{torch.version.cuda}"
