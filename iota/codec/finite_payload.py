"""Whether a payload holds NaN, Inf or absurd values, by its bytes alone: the orchestrator has no torch."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from iota.spec import WireDtype

MAX_MAGNITUDE: Final = 1e15
"""No stage of a model that trains sends larger values. Squares of gradients that smaller ones give may still
overflow fp32: `iota.compute.clip` takes their norm all the same."""
LARGEST_FINITE: Final = float(np.finfo(np.float32).max)
"""The bound that every payload without NaN and Inf keeps."""


def payload_is_finite(
    payload: bytes, shape: tuple[int, int, int], dtype: WireDtype, largest: float = MAX_MAGNITUDE
) -> bool:
    """Whether all values of a payload of `shape`, as `decode_wire` gives them, are within `largest`.

    The payload must have the size that `wire_size` gives.
    """
    # Of numbers without their sign, bits are in the order of magnitudes, with Inf and NaN above all others.
    largest_bits = int(np.float32(largest).view(np.uint32))
    if dtype is WireDtype.FP32:
        return bool((_magnitudes(payload, "<u4", 0x7FFFFFFF) <= largest_bits).all())
    if dtype is WireDtype.BF16:
        return bool((_magnitudes(payload, "<u2", 0x7FFF) <= largest_bits >> 16).all())
    tokens, width = shape[0] * shape[1], shape[2]
    values_NK = np.frombuffer(payload, np.int8, tokens * width).reshape(tokens, width)
    scale_N = np.abs(np.frombuffer(payload, "<f4", tokens, tokens * width))
    largest_N = np.abs(np.stack([values_NK.min(-1), values_NK.max(-1)]).astype(np.float32)).max(0)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((largest_N * scale_N <= largest).all())


def _magnitudes(payload: bytes, dtype: str, mask: int) -> npt.NDArray[np.integer]:
    """The bits of each number without its sign."""
    found: npt.NDArray[np.integer] = np.frombuffer(payload, dtype) & mask
    return found
