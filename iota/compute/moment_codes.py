"""Moments in 8 bits: small floats in blocks with a scale each, rounded stochastically.

A code is an exponent and 3 bits of mantissa, in units of its block's scale: a power of two just above the
largest magnitude of `iota.model.moment_layout.BLOCK` elements. First moments and momenta have a sign and 16
octaves, second moments no sign and 32. AdamW divides each element by the root of its own second moment, so an
error must be small beside the element, and not beside its block. Muon would take codes in even steps; where
its momentum is nearly one direction, what is left of it is then more noise than devices agree on.

Small floats are cut out of the bits of fp32 as in `iota.compute.rounding`; that and scaling by a power of two
are exact on every device. A first moment too small for its block becomes 0. A second moment becomes the
smallest code, never 0: what is divided by its root then moves less, not more.

Codes and scales of a hostile state decode to finite values if what `largest` gives is finite.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from iota.model.moment_layout import BLOCK

_SIGNED, _UNSIGNED = 127, 255
"""Codes of the magnitude 1, in units of the scale: the largest ones."""
_EXPONENT: Final = 23
"""The lowest bit of an fp32 exponent."""
_CUT: Final = 20
"""Bits of an fp32 mantissa that a small float does not keep."""
_ONE: Final = 127 << (_EXPONENT - _CUT)
"""What is kept of the bits of 1.0."""
_LEAST_EXPONENT, _MOST_EXPONENT = 34, 253
"""Of a scale, biased: with the least one the smallest code is no subnormal number. Values above the most one,
2^126, are cut."""


def encode(values_N: Tensor, bits_N: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes (N,), int8 or without a sign uint8, and fp32 scales, one a block, with 16 random bits each."""
    blocks_BK = _blocks(values_N)
    most_B1 = blocks_BK.abs().amax(dim=1, keepdim=True)
    exponent_B1 = (most_B1.view(torch.int32) >> _EXPONENT) + 1
    power_B1 = (exponent_B1.clamp_(_LEAST_EXPONENT, _MOST_EXPONENT) << _EXPONENT).view(torch.float32)
    top = _SIGNED if signed else _UNSIGNED
    units_BK = (blocks_BK.abs() / power_B1).view(torch.int32)
    kept_BK = (units_BK + (_blocks(bits_N) << (_CUT - 16))) >> _CUT
    codes_BK = (kept_BK - (_ONE - top)).clamp_(0 if signed else 1, top)
    if signed:
        codes_BK = torch.where(blocks_BK < 0, -codes_BK, codes_BK).to(torch.int8)
    else:
        codes_BK = torch.where(blocks_BK > 0, codes_BK, 0).to(torch.uint8)
    return codes_BK.view(-1)[: values_N.numel()], torch.where(most_B1 > 0, power_B1, 0.0).view(-1)


def decode(codes_N: Tensor, scale_B: Tensor) -> Tensor:
    """The fp32 values of small floats: with a sign if the codes are int8."""
    top = _SIGNED if codes_N.dtype is torch.int8 else _UNSIGNED
    wide_N = codes_N.int()
    units_N = ((wide_N.abs() + (_ONE - top)) << _CUT).view(torch.float32)
    return _scaled(torch.where(wide_N < 0, -units_N, units_N).mul_(wide_N != 0), scale_B)


def largest(scale_B: Tensor) -> Tensor:
    """A bound of the magnitudes that any codes give with these scales; infinite where fp32 has no room."""
    return scale_B * 2


def _blocks(values_N: Tensor) -> Tensor:
    """[blocks, BLOCK]; the last one is filled up with zeros."""
    missing = -values_N.numel() % BLOCK
    return (F.pad(values_N, (0, missing)) if missing else values_N).view(-1, BLOCK)


def _scaled(units_N: Tensor, scale_B: Tensor) -> Tensor:
    """Units of each block times its scale, in place."""
    whole = units_N.numel() - units_N.numel() % BLOCK
    units_N[:whole].view(-1, BLOCK).mul_(scale_B[: whole // BLOCK, None])
    if whole < units_N.numel():
        units_N[whole:].mul_(scale_B[-1])
    return units_N
