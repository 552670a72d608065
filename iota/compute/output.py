"""Results of an op on the device, and their copy to the host."""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3
from torch import Tensor

from iota.compute.devices import device_of
from iota.compute.names import Output


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
    """A copy of results to the host, in progress while the device continues. What is there is not copied."""

    def __init__(self, output: DeviceOutput) -> None:
        self._output = output
        tensors = [output.hashed_N, *([] if output.loss is None else [output.loss])]
        device = device_of(output.hashed_N.device)
        self._host = [device.to_host(tensor, copy=False) for tensor in tensors]
        self._copied = device.current().record()

    def result(self) -> Output:
        """Wait for the copy, and compute bytes and digest from it."""
        self._copied.synchronize()
        hashed, *loss = self._host
        data = hashed.numpy().tobytes()
        return Output(
            payload=data if self._output.sent else None,
            digest=blake3(data).hexdigest(),
            tokens=self._output.tokens,
            loss=float(loss[0]) if loss else None,
        )
