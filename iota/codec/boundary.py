"""Boundary codecs: module pairs that compress what crosses a cut and are trained with the model.

    z = x[..., :k] + E(x)          encode, a parameter of the sending stage
    y = pad(z, d)  + D(z)          decode, a parameter of the receiving stage

With an anchor the sender subtracts a learned token embedding of its own from x first, and the
receiver adds one of its own to y. E, D and both anchors start at zero, so that a new boundary is
the projection onto the first k channels on both sides.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iota.codec.shapes import codec_hidden
from iota.codec.wire_dtype import round_wire
from iota.spec import BoundarySpec, Codec, ModelSpec, WireDtype


class TokenAnchor(nn.Module):
    """A factorised embedding (V x r, r x d) that one side of a boundary owns."""

    def __init__(self, vocabulary: int, rank: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(vocabulary, rank))
        self.basis = nn.Parameter(torch.empty(rank, width))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return F.embedding(ids_BT, self.tokens) @ self.basis


class Encoder(nn.Module):
    """The sending side: (B, T, d) -> (B, T, k)."""

    def __init__(self, model: ModelSpec, boundary: BoundarySpec) -> None:
        super().__init__()
        self.width = model.hidden_size // boundary.ratio
        hidden = codec_hidden(model, boundary)
        self.inner = nn.Linear(model.hidden_size, hidden)
        self.outer = nn.Linear(hidden, self.width)
        self.anchor = _anchor(model, boundary)

    def forward(self, x_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        if self.anchor is not None:
            x_BTD = x_BTD - self.anchor(ids_BT)
        mapped: Tensor = self.outer(F.silu(self.inner(x_BTD)))
        return x_BTD[..., : self.width] + mapped


class Decoder(nn.Module):
    """The receiving side: (B, T, k) -> (B, T, d)."""

    def __init__(self, model: ModelSpec, boundary: BoundarySpec) -> None:
        super().__init__()
        width = model.hidden_size // boundary.ratio
        self.missing = model.hidden_size - width
        hidden = codec_hidden(model, boundary)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, model.hidden_size)
        self.anchor = _anchor(model, boundary)

    def forward(self, z_BTK: Tensor, ids_BT: Tensor) -> Tensor:
        y_BTD: Tensor = F.pad(z_BTK, (0, self.missing)) + self.outer(F.silu(self.inner(z_BTK)))
        return y_BTD if self.anchor is None else y_BTD + self.anchor(ids_BT)


def encoder(model: ModelSpec, boundary: BoundarySpec) -> nn.Module | None:
    """The sending module of a codec; None for `identity`, which has no parameters."""
    return None if boundary.codec is Codec.IDENTITY else Encoder(model, boundary)


def decoder(model: ModelSpec, boundary: BoundarySpec) -> nn.Module | None:
    """The receiving module of a codec; None for `identity`."""
    return None if boundary.codec is Codec.IDENTITY else Decoder(model, boundary)


class _WireRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_BTK: Tensor, dtype: WireDtype) -> Tensor:
        ctx.dtype = dtype
        return round_wire(z_BTK, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return round_wire(gradients[0], ctx.dtype), None


def wire_round(z_BTK: Tensor, dtype: WireDtype) -> Tensor:
    """What a wire does to autograd: values are rounded on the way down, gradients on the way up.

    Equal to the bit to decode_wire(encode_wire(.)) in both directions.
    """
    rounded: Tensor = _WireRound.apply(z_BTK, dtype)  # type: ignore[no-untyped-call]
    return rounded


def _anchor(model: ModelSpec, boundary: BoundarySpec) -> TokenAnchor | None:
    if boundary.codec is not Codec.RESBM_ANCHOR:
        return None
    return TokenAnchor(model.vocab_size, boundary.anchor_rank, model.hidden_size)
