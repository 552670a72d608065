"""The interface of a boundary codec, which narrows the residual stream at a cut and restores it.

Codecs import torch inside `encode` and `decode` only, because the orchestrator needs their shapes and
sizes and runs without torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from iota.spec import BoundarySpec, ModelSpec

if TYPE_CHECKING:
    from torch import Tensor


class Side(StrEnum):
    """The two halves of a codec. Each has its own parameters."""

    ENCODE = "encode"
    """In the stage before the boundary."""
    DECODE = "decode"
    """In the stage after it."""


@dataclass(frozen=True)
class CodecParameter:
    """One parameter of a codec."""

    shape: tuple[int, ...]
    std: float = 0.0
    """Standard deviation of the normal initial values; 0 means zeros."""
    multiplied: bool = True
    """False for a table with a row for each token id, which costs memory but no FLOPs."""


class BoundaryCodec(ABC):
    """An encoder and a decoder that are trained with the model."""

    name: str
    """Its name in a spec's `boundary.codec`."""
    needs_tokens: bool
    """Whether `encode` or `decode` reads the token ids."""

    @abstractmethod
    def width(self, model: ModelSpec, boundary: BoundarySpec) -> int:
        """k, the channels that cross the boundary. Raises ValueError if the settings do not fit the model."""

    @abstractmethod
    def parameters(
        self, side: Side, model: ModelSpec, boundary: BoundarySpec
    ) -> Mapping[str, CodecParameter]:
        """Parameters of one side, by their name within that side."""

    @abstractmethod
    def saved_values(self, side: Side, model: ModelSpec, boundary: BoundarySpec) -> int:
        """Values of a token that a backward of one side needs: inputs of products and of activations."""

    @staticmethod
    @abstractmethod
    def encode(weights: Mapping[str, Tensor], x_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        """Boundary tensor (B, T, k), not yet rounded to the wire, of a residual stream (B, T, d).

        `weights` are the parameters of the encoding side, `ids_BT` the token ids. An export contains the
        source of `encode` and `decode`, so they use no other name of their module and import torch inside.
        """

    @staticmethod
    @abstractmethod
    def decode(weights: Mapping[str, Tensor], z_BTK: Tensor, ids_BT: Tensor) -> Tensor:
        """Residual stream (B, T, d) of a received boundary tensor (B, T, k). See `encode`."""
