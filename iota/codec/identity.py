"""`identity`: the residual stream without compression, as a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from iota.codec.boundary_codec import BoundaryCodec, CodecParameter, Side
from iota.spec import BoundarySpec, ModelSpec

if TYPE_CHECKING:
    from torch import Tensor


class Identity(BoundaryCodec):
    """Sends all d channels. It has no parameters."""

    name = "identity"
    needs_tokens = False

    def width(self, model: ModelSpec, boundary: BoundarySpec) -> int:
        return model.hidden_size

    def parameters(
        self, side: Side, model: ModelSpec, boundary: BoundarySpec
    ) -> Mapping[str, CodecParameter]:
        return {}

    def saved_values(self, side: Side, model: ModelSpec, boundary: BoundarySpec) -> int:
        return 0

    @staticmethod
    def encode(weights: Mapping[str, Tensor], x_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        return x_BTD

    @staticmethod
    def decode(weights: Mapping[str, Tensor], z_BTK: Tensor, ids_BT: Tensor) -> Tensor:
        return z_BTK
