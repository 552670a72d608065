"""The wire's rounding as an autograd function: of values in forward, of gradients in backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iota.codec.wire_dtype import round_wire
from iota.spec import WireDtype


class _WireRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_BTK: Tensor, dtype: WireDtype) -> Tensor:
        ctx.dtype = dtype
        return round_wire(z_BTK, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return round_wire(gradients[0], ctx.dtype), None


def wire_round(z_BTK: Tensor, dtype: WireDtype) -> Tensor:
    """Round a (B, T, k) tensor to the wire, and its gradient in backward.

    Both are bitwise equal to decode_wire(encode_wire(x)).
    """
    rounded: Tensor = _WireRound.apply(z_BTK, dtype)  # type: ignore[no-untyped-call]
    return rounded
