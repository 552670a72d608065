"""Wire dtypes: a boundary tensor as bytes, and back.

| wire | error of one value |
|---|---|
| fp32 | none |
| bf16 | at most 2^-8 of the value (round to nearest even) |
| int8 | at most 1/254 of the largest value of its token |
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iota.codec.errors import PayloadError
from iota.codec.shapes import wire_size
from iota.spec import WireDtype

_INT8_MAX = 127.0


def encode_wire(x_BTK: Tensor, dtype: WireDtype) -> bytes:
    """Raw little-endian values of a finite fp32 tensor; for int8 then one fp32 scale a token."""
    x_BTK = x_BTK.detach()
    if dtype is WireDtype.FP32:
        return _raw(x_BTK)
    if dtype is WireDtype.BF16:
        return _raw(x_BTK.to(torch.bfloat16).view(torch.int16))
    values_BTK, scale_BT1 = _quantize(x_BTK)
    return _raw(values_BTK) + _raw(scale_BT1)


def decode_wire(
    payload: bytes, shape: tuple[int, int, int], dtype: WireDtype, device: torch.device | str = "cpu"
) -> Tensor:
    """fp32 tensor of `shape`. Raises PayloadError for bytes of any other size, before allocating.

    Values may still be NaN or Inf: whoever computes with them checks (`all_finite`).
    """
    size = wire_size(shape, dtype)
    if len(payload) != size:
        raise PayloadError(f"{len(payload)} bytes where a {dtype} tensor of shape {shape} has {size}")
    if dtype is WireDtype.FP32:
        return _tensor(payload, np.float32, device).view(shape)
    if dtype is WireDtype.BF16:
        return _tensor(payload, np.int16, device).view(torch.bfloat16).float().view(shape)
    values = shape[0] * shape[1] * shape[2]
    quantized_BTK = _tensor(payload[:values], np.int8, device).view(shape)
    scale_BT1 = _tensor(payload[values:], np.float32, device).view(shape[0], shape[1], 1)
    return quantized_BTK.float() * scale_BT1


def round_wire(x_BTK: Tensor, dtype: WireDtype) -> Tensor:
    """decode_wire(encode_wire(x)) to the bit, without the bytes."""
    if dtype is WireDtype.FP32:
        return x_BTK.clone()
    if dtype is WireDtype.BF16:
        return x_BTK.to(torch.bfloat16).float()
    values_BTK, scale_BT1 = _quantize(x_BTK)
    return values_BTK.float() * scale_BT1


def _quantize(x_BTK: Tensor) -> tuple[Tensor, Tensor]:
    scale_BT1 = x_BTK.abs().amax(-1, keepdim=True) / _INT8_MAX
    # a token of zeros has scale 0; dividing by 1 then keeps its values 0
    divisor_BT1 = torch.where(scale_BT1 > 0, scale_BT1, torch.ones_like(scale_BT1))
    values_BTK = (x_BTK / divisor_BT1).round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8)
    return values_BTK, scale_BT1


def _raw(x: Tensor) -> bytes:
    return x.contiguous().cpu().numpy().tobytes()


def _tensor(payload: bytes, dtype: type[np.generic], device: torch.device | str) -> Tensor:
    # the copy makes it writable and its own; torch takes no read-only memory
    return torch.from_numpy(np.frombuffer(payload, dtype=dtype).copy()).to(device)
