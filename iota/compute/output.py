"""Results of an op on the device, and their copy to the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from blake3 import blake3
from torch import Tensor

from iota.compute.names import Output
from iota.compute.transfer import pinned


@dataclass(frozen=True)
class DeviceOutput:
    """Result of an op on a microbatch on the device. Making it does not wait for the device."""

    hashed_N: Tensor
    """The bytes to digest, uint8: the payload, or raw fp32 values if nothing is sent: of the gradient, or an
    EVAL's losses of tokens."""
    sent: bool
    """False for the BACKWARD of stage 0 and for EVAL."""
    tokens: int
    loss: Tensor | None = None
    """Mean nats per token of a LOSS or EVAL, a scalar."""

    @property
    def payload(self) -> Tensor | None:
        """Payload for the neighbouring stage (uint8, one dimension); None if nothing is sent."""
        return self.hashed_N if self.sent else None

    def read(self) -> ReadBack:
        """Start copying the results to the host."""
        return ReadBack(self)


class ReadBack:
    """A copy of results to the host, in progress: from CUDA to pinned memory, while the device continues.

    Results on the CPU are not copied.
    """

    def __init__(self, output: DeviceOutput) -> None:
        self._output = output
        tensors = [output.hashed_N, *([] if output.loss is None else [output.loss])]
        self._copied: torch.cuda.Event | None = None
        if output.hashed_N.is_cuda:
            tensors = [pinned(tensor) for tensor in tensors]
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(output.hashed_N.device))
        self._host = tensors

    def result(self) -> Output:
        """Wait for the copy, and compute bytes and digest from it."""
        if self._copied is not None:
            self._copied.synchronize()
        hashed, *loss = self._host
        data = hashed.numpy().tobytes()
        return Output(
            payload=data if self._output.sent else None,
            digest=blake3(data).hexdigest(),
            tokens=self._output.tokens,
            loss=float(loss[0]) if loss else None,
        )
