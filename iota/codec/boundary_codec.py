"""The interface of a boundary codec: how one cut narrows the residual stream, and restores it.

A codec's file imports torch inside `encode` and `decode` alone: the orchestrator needs shapes and sizes
and runs without torch.
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
    ENCODE = "encode"
    """Owned by the stage before the boundary."""
    DECODE = "decode"
    """Owned by the stage after it."""


@dataclass(frozen=True)
class CodecParameter:
    shape: tuple[int, ...]
    std: float = 0.0
    """Standard deviation of its normal initial values; 0 starts it at zeros."""
    multiplied: bool = True
    """False for a table that is only looked up: it costs memory and no FLOPs."""


class BoundaryCodec(ABC):
    """A pair of functions that is trained with the model, and what follows from it without torch."""

    name: str
    """As a spec's `boundary.codec` gives it."""
    needs_tokens: bool
    """True where `encode` or `decode` reads the token ids."""

    @abstractmethod
    def width(self, model: ModelSpec, boundary: BoundarySpec) -> int:
        """k: channels that cross the boundary. Raises ValueError for settings that do not fit the model."""

    @abstractmethod
    def parameters(
        self, side: Side, model: ModelSpec, boundary: BoundarySpec
    ) -> Mapping[str, CodecParameter]:
        """Parameters of one side, by their name within it."""

    @staticmethod
    @abstractmethod
    def encode(weights: Mapping[str, Tensor], x_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        """The boundary tensor (B, T, k), not yet rounded to the wire, of a residual stream.

        `weights` are the parameters of the encoding side. An export holds the source of `encode` and
        `decode`, so that each must stand alone: it uses nothing of its module and imports what it needs.
        """

    @staticmethod
    @abstractmethod
    def decode(weights: Mapping[str, Tensor], z_BTK: Tensor, ids_BT: Tensor) -> Tensor:
        """The residual stream (B, T, d) of a received boundary tensor. See `encode`."""
