"""Results of an op on the device, and their copy to the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

import torch
from blake3 import blake3
from torch import Tensor

from iota.compute.devices import device_of
from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch, Output, StepOutput

T = TypeVar("T")

MAX_CHECK: Final = 2.0**127
"""Checks of an op that is not bad are no larger. fp32 has room for twice as much: who repeats the op on a
device of another class, whose roundings differ, can be laxer or stricter than its miner."""


class ReadBack(Generic[T]):
    """A copy of results to the host, in progress while the device continues. What is there is not copied."""

    def __init__(self, tensors: Sequence[Tensor], make: Callable[[Sequence[Tensor]], T]) -> None:
        """`make` computes the result from the tensors on the host."""
        device = device_of(tensors[0].device)
        self._make = make
        self._host = [device.to_host(tensor, copy=False) for tensor in tensors]
        self._copied = device.current().record()

    def result(self) -> T:
        """Wait for the copy; the result, or BadValueError. May be called in any thread."""
        self._copied.synchronize()
        return self._make(self._host)


@dataclass(frozen=True)
class DeviceOutput:
    """Result of an op on a microbatch on the device. Making it does not wait for the device."""

    mb: Microbatch
    hashed_N: Tensor
    """The bytes to digest, uint8: the payload, or raw fp32 values if nothing is sent: of the gradient, or an
    EVAL's losses of tokens."""
    sent: bool
    """False for the BACKWARD of stage 0 and for EVAL."""
    tokens: int
    checks: Mapping[str, Tensor]
    """Scalars that are at most `MAX_CHECK` unless what they are named after is bad."""
    loss: Tensor | None = None
    """Mean nats per token of a LOSS or EVAL, a scalar."""

    @property
    def payload(self) -> Tensor | None:
        """Payload for the neighbouring stage (uint8, one dimension); None if nothing is sent."""
        return self.hashed_N if self.sent else None

    def read(self, most: float = MAX_CHECK) -> ReadBack[Output]:
        """Start copying the results to the host.

        `result` then computes bytes and digest. It raises BadValueError where a check is above `most`, which
        is finite, or NaN: the caller must have the engine `discard` the microbatch.
        """
        checks = torch.stack([check.float() for check in self.checks.values()])
        loss = [] if self.loss is None else [self.loss]
        return ReadBack([checks, self.hashed_N, *loss], partial(self._on_host, most))

    def _on_host(self, most: float, host: Sequence[Tensor]) -> Output:
        checks, hashed, *loss = host
        for what, value in zip(self.checks, checks.tolist(), strict=True):
            if not abs(value) <= most:
                raise BadValueError(
                    f"NaN or Inf in {what} of microbatch {self.mb.index} of step {self.mb.step}"
                )
        data = hashed.numpy().data  # no copy: a frame is made of it
        return Output(
            payload=data if self.sent else None,
            digest=blake3(data).hexdigest(),
            tokens=self.tokens,
            loss=float(loss[0]) if loss else None,
        )


@dataclass(frozen=True)
class DeviceStep:
    """Result of a STEP on the device. Making it does not wait for the device."""

    version: int
    """The weight version that the step produced."""
    norm: Tensor
    """Norm of the mean gradient before clipping, a scalar."""

    def read(self) -> ReadBack[StepOutput]:
        """Start copying the norm to the host.

        `result` raises BadValueError if it is not finite: the version's weights are then bad too.
        """
        return ReadBack([self.norm], self._on_host)

    def _on_host(self, host: Sequence[Tensor]) -> StepOutput:
        norm = float(host[0])
        if not math.isfinite(norm):
            raise BadValueError("the step's gradient has a norm that is not finite")
        return StepOutput(self.version, norm)
