"""`resbm` and `resbm-anchor`: the first k channels, and a residual from a learned two-layer map.

    z = x[..., :k] + E(x)          encode, a parameter of the sending stage
    y = pad(z, d)  + D(z)          decode, a parameter of the receiving stage

With an anchor, the sender first subtracts a learned token embedding from x, and the receiver adds one to
y; each side has its own. E, D and both anchors start at zero, so that a new boundary truncates to k
channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from iota.codec.boundary_codec import BoundaryCodec, CodecParameter, Side
from iota.spec import BoundarySpec, ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

_MIN_HIDDEN = 32
"""Least hidden width of the two-layer maps. Narrower ones learn too little."""


class Resbm(BoundaryCodec):
    """`anchored` adds a factorised token embedding, (V, r) times (r, d), to each side."""

    def __init__(self, *, anchored: bool) -> None:
        self.name = "resbm-anchor" if anchored else "resbm"
        self.needs_tokens = anchored

    def width(self, model: ModelSpec, boundary: BoundarySpec) -> int:
        if model.hidden_size % boundary.ratio:
            divisors = [r for r in range(2, min(model.hidden_size, 256) + 1) if model.hidden_size % r == 0]
            raise ValueError(
                f"ratio {boundary.ratio} does not divide the width {model.hidden_size}:"
                f" choose one of {divisors}"
            )
        return model.hidden_size // boundary.ratio

    def parameters(
        self, side: Side, model: ModelSpec, boundary: BoundarySpec
    ) -> Mapping[str, CodecParameter]:
        d, k = model.hidden_size, self.width(model, boundary)
        hidden = max(_MIN_HIDDEN, round(boundary.hidden_ratio * k))
        inputs, outputs = (d, k) if side is Side.ENCODE else (k, d)
        found = {
            "inner.weight": CodecParameter((hidden, inputs), model.init_std),
            "inner.bias": CodecParameter((hidden,)),
            "outer.weight": CodecParameter((outputs, hidden)),
            "outer.bias": CodecParameter((outputs,)),
        }
        if self.needs_tokens:
            rank = boundary.anchor_rank
            # Rows have unit length, so that the update of the zero basis has the optimizer's usual size.
            tokens = CodecParameter((model.vocab_size, rank), 1 / math.sqrt(rank), multiplied=False)
            found |= {"anchor.tokens": tokens, "anchor.basis": CodecParameter((rank, d))}
        return found

    def saved_values(self, side: Side, model: ModelSpec, boundary: BoundarySpec) -> int:
        hidden, inputs = self.parameters(side, model, boundary)["inner.weight"].shape
        return inputs + 2 * hidden + (boundary.anchor_rank if self.needs_tokens else 0)

    @staticmethod
    def encode(weights: Mapping[str, Tensor], x_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        from torch.nn.functional import embedding, linear, silu

        if "anchor.tokens" in weights:
            x_BTD = x_BTD - embedding(ids_BT, weights["anchor.tokens"]) @ weights["anchor.basis"]
        hidden_BTH = silu(linear(x_BTD, weights["inner.weight"], weights["inner.bias"]))
        mapped_BTK = linear(hidden_BTH, weights["outer.weight"], weights["outer.bias"])
        return x_BTD[..., : mapped_BTK.shape[-1]] + mapped_BTK

    @staticmethod
    def decode(weights: Mapping[str, Tensor], z_BTK: Tensor, ids_BT: Tensor) -> Tensor:
        from torch.nn.functional import embedding, linear, pad, silu

        missing = weights["outer.weight"].shape[0] - z_BTK.shape[-1]
        padded_BTD = pad(z_BTK, (0, missing))
        hidden_BTH = silu(linear(z_BTK, weights["inner.weight"], weights["inner.bias"]))
        y_BTD = padded_BTD + linear(hidden_BTH, weights["outer.weight"], weights["outer.bias"])
        if "anchor.tokens" in weights:
            y_BTD = y_BTD + embedding(ids_BT, weights["anchor.tokens"]) @ weights["anchor.basis"]
        return y_BTD
