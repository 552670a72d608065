"""Results of an op: tensors on the device that made them, and what of them leaves the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from blake3 import blake3
from torch import Tensor

from iota.compute.names import Output
from iota.compute.sketch import finish


@dataclass(frozen=True)
class DeviceOutput:
    """Of a FORWARD, LOSS or BACKWARD. Nothing here waits for the device."""

    hashed_N: Tensor
    """uint8: the payload; at stage 0's BACKWARD, which sends nothing, the raw fp32 gradient."""
    sent: bool
    projection_J: Tensor
    """The sketch before its division by the root of `elements`."""
    elements: int
    tokens: int
    loss: Tensor | None = None
    """Of a LOSS: mean nats a token, a scalar."""

    @property
    def payload(self) -> Tensor | None:
        """uint8 of one dimension for the neighbouring stage; None where there is nobody to send to."""
        return self.hashed_N if self.sent else None

    def read(self) -> ReadBack:
        """Start copying the results to the host."""
        return ReadBack(self)


class ReadBack:
    """A copy of results to the host, under way: from CUDA into pinned memory while the device goes on.

    On the CPU the results are there already and nothing is copied.
    """

    def __init__(self, output: DeviceOutput) -> None:
        self._output = output
        tensors = [output.hashed_N, output.projection_J, *([] if output.loss is None else [output.loss])]
        self._copied: torch.cuda.Event | None = None
        if output.hashed_N.is_cuda:
            tensors = [_pinned(tensor) for tensor in tensors]
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(output.hashed_N.device))
        self._host = tensors

    def result(self) -> Output:
        """Wait for the copy, then make bytes, digest and sketch of it."""
        if self._copied is not None:
            self._copied.synchronize()
        hashed, projection, *loss = self._host
        data = hashed.numpy().tobytes()
        return Output(
            payload=data if self._output.sent else None,
            digest=blake3(data).hexdigest(),
            sketch=finish(projection, self._output.elements),
            tokens=self._output.tokens,
            loss=float(loss[0]) if loss else None,
        )


def _pinned(tensor: Tensor) -> Tensor:
    """A host copy that is complete once the current stream has come to it."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
