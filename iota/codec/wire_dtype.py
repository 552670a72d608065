"""Wire dtypes: conversion of boundary tensors to bytes and back, on the tensor's device.

| wire | error of one value |
|---|---|
| fp32 | none |
| bf16 | at most 2^-8 of the value (round to nearest even) |
| int8 | at most 1/254 of the largest value of its token |

A payload is a uint8 tensor of one dimension with the raw little-endian values. For int8, one fp32 scale
for each token follows. Functions of sizes do not import torch, the others do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from iota.codec.errors import PayloadError
from iota.spec import WireDtype

if TYPE_CHECKING:
    from torch import Tensor

_INT8_MAX = 127.0
"""The range is symmetric: -128 is unused."""


class _Wire(ABC):
    """Conversion of one dtype."""

    value_bytes: int
    scale_bytes: int = 0
    """For each token, in addition to its values."""

    @abstractmethod
    def encode(self, x_BTK: Tensor) -> Tensor:
        """Payload of a finite, contiguous, detached fp32 tensor. It may share the tensor's memory."""

    @abstractmethod
    def decode(self, payload_N: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """The fp32 tensor of a payload, whose size was checked. It may share the payload's memory."""

    @abstractmethod
    def round(self, x_BTK: Tensor) -> Tensor:
        """Bitwise equal to decode(encode(x)), in new memory."""


class _Fp32(_Wire):
    value_bytes = 4

    def encode(self, x_BTK: Tensor) -> Tensor:
        return _as_bytes(x_BTK)

    def decode(self, payload_N: Tensor, shape: tuple[int, int, int]) -> Tensor:
        import torch

        return payload_N.view(torch.float32).view(shape)

    def round(self, x_BTK: Tensor) -> Tensor:
        return x_BTK.clone()


class _Bf16(_Wire):
    value_bytes = 2

    def encode(self, x_BTK: Tensor) -> Tensor:
        return _as_bytes(x_BTK.bfloat16())

    def decode(self, payload_N: Tensor, shape: tuple[int, int, int]) -> Tensor:
        import torch

        return payload_N.view(torch.bfloat16).float().view(shape)

    def round(self, x_BTK: Tensor) -> Tensor:
        return x_BTK.bfloat16().float()


class _Int8(_Wire):
    """Each token is scaled by its largest absolute value."""

    value_bytes = 1
    scale_bytes = 4

    def encode(self, x_BTK: Tensor) -> Tensor:
        import torch

        values_BTK, scale_BT1 = self._quantized(x_BTK)
        return torch.cat([_as_bytes(values_BTK), _as_bytes(scale_BT1)])

    def decode(self, payload_N: Tensor, shape: tuple[int, int, int]) -> Tensor:
        import torch

        b, t, k = shape
        values_BTK = payload_N[: b * t * k].view(torch.int8).view(shape)
        # A view as fp32 needs an aligned address, which the middle of a payload may not have.
        scale_BT1 = payload_N[b * t * k :].clone().view(torch.float32).view(b, t, 1)
        return values_BTK.float() * scale_BT1

    def round(self, x_BTK: Tensor) -> Tensor:
        values_BTK, scale_BT1 = self._quantized(x_BTK)
        return values_BTK.float() * scale_BT1

    @staticmethod
    def _quantized(x_BTK: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        scale_BT1 = x_BTK.abs().amax(-1, keepdim=True) / _INT8_MAX
        # A token of zeros has scale 0. It is divided by 1, so that its values stay 0.
        divisor_BT1 = torch.where(scale_BT1 > 0, scale_BT1, torch.ones_like(scale_BT1))
        values_BTK = (x_BTK / divisor_BT1).round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8)
        return values_BTK, scale_BT1


_WIRES: dict[WireDtype, _Wire] = {
    WireDtype.FP32: _Fp32(),
    WireDtype.BF16: _Bf16(),
    WireDtype.INT8: _Int8(),
}


def token_bytes(width: int, dtype: WireDtype) -> int:
    """Bytes of one token's `width` values on the wire."""
    wire = _WIRES[dtype]
    return width * wire.value_bytes + wire.scale_bytes


def wire_size(shape: tuple[int, int, int], dtype: WireDtype) -> int:
    """Bytes of a boundary tensor of `shape` (sequences, sequence_length, k) on the wire."""
    sequences, length, width = shape
    return sequences * length * token_bytes(width, dtype)


def encode_wire(x_BTK: Tensor, dtype: WireDtype) -> Tensor:
    """Payload (uint8, one dimension) of a finite fp32 tensor, on its device.

    It may share the tensor's memory.
    """
    return _WIRES[dtype].encode(x_BTK.detach().contiguous())


def decode_wire(payload_N: Tensor, shape: tuple[int, int, int], dtype: WireDtype) -> Tensor:
    """The fp32 tensor of a payload, on its device. It may share the payload's memory.

    Values may be NaN or Inf; callers check them (`iota.compute.finite`).

    Raises:
        PayloadError: if the payload is not a uint8 tensor of the size for this shape and dtype.
    """
    import torch

    size = wire_size(shape, dtype)
    if payload_N.dtype != torch.uint8 or payload_N.shape != (size,):
        raise PayloadError(
            f"{payload_N.dtype} {tuple(payload_N.shape)} where the payload of a {dtype} tensor of shape"
            f" {shape} is {size} bytes"
        )
    return _WIRES[dtype].decode(payload_N, shape)


def round_wire(x_BTK: Tensor, dtype: WireDtype) -> Tensor:
    """Bitwise equal to decode_wire(encode_wire(x)), in new memory, without making the payload."""
    return _WIRES[dtype].round(x_BTK)


def payload_tensor(payload: bytes | memoryview) -> Tensor:
    """Received bytes as a payload on the CPU, in new memory."""
    import numpy as np
    import torch

    # Copied because bytes are read-only and torch supports writable memory only, and because the middle of a
    # frame is not aligned to its values.
    return torch.from_numpy(np.frombuffer(payload, np.uint8).copy())


def _as_bytes(x: Tensor) -> Tensor:
    import torch

    return x.flatten().view(torch.uint8)
