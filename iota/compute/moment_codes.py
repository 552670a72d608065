"""Moments in 8 bits: one scale for each block of elements, and codes that are rounded stochastically.

A code is of a block of `iota.model.moment_layout.BLOCK` elements, whose largest magnitude decides the scale:

* Muon's momentum is linear: code times scale, the scale a 127th of the largest magnitude. Its matrix is
  orthogonalised as a whole, to which noise of so much of the largest element is small.
* AdamW's moments are small floats: an exponent and 3 bits of mantissa, in units of a power of two. Each
  element is divided by the root of its own second moment, so that an error must be small beside the element,
  and not beside its block. The first moment has a sign and 16 octaves, the second one no sign and 32.

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

_LINEAR: Final = 127
_LEAST_LINEAR, _MOST_LINEAR = 2.0**-100, 2.0**126
"""Momenta of a block that is smaller are zero, since their scale would be subnormal; larger ones are cut."""
_SIGNED, _UNSIGNED = 127, 255
"""Codes of the magnitude 1, in units of the scale: the largest ones."""
_CUT: Final = 20
"""Bits of an fp32 mantissa that a small float does not keep."""
_ONE: Final = 127 << (23 - _CUT)
"""What is kept of the bits of 1.0."""
_EXPONENT: Final = 23
_LEAST_EXPONENT, _MOST_EXPONENT = 34, 253
"""Of a scale, biased: with the least one the smallest code is no subnormal number. Values above the most one,
2^126, are cut."""


def encode_linear(values_N: Tensor, bits_N: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes (N,) and fp32 scales, one a block, of fp32 values, with 16 random bits each."""
    blocks_BK = _blocks(values_N)
    most_B1 = _most(blocks_BK).clamp_(max=_MOST_LINEAR)
    scale_B1 = torch.where(most_B1 < _LEAST_LINEAR, 0.0, most_B1 / _LINEAR)
    units_BK = blocks_BK / torch.where(scale_B1 == 0, torch.inf, scale_B1)
    up_BK = _blocks(bits_N).float() * 2.0**-16
    codes_BK = (units_BK + up_BK).floor_().clamp_(-_LINEAR, _LINEAR).to(torch.int8)
    return codes_BK.view(-1)[: values_N.numel()], scale_B1.view(-1)


def decode_linear(codes_N: Tensor, scale_B: Tensor) -> Tensor:
    """The fp32 values of linear codes."""
    return _scaled(codes_N.float(), scale_B)


def encode_float(values_N: Tensor, bits_N: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes (N,), int8 or without a sign uint8, and fp32 scales, one a block, with 16 random bits each."""
    blocks_BK = _blocks(values_N)
    most_B1 = _most(blocks_BK)
    exponent_B1 = (most_B1.view(torch.int32) >> _EXPONENT) + 1
    power_B1 = (exponent_B1.clamp_(_LEAST_EXPONENT, _MOST_EXPONENT) << _EXPONENT).view(torch.float32)
    largest = _SIGNED if signed else _UNSIGNED
    units_BK = (blocks_BK.abs() / power_B1).view(torch.int32)
    kept_BK = (units_BK + (_blocks(bits_N) << (_CUT - 16))) >> _CUT
    codes_BK = (kept_BK - (_ONE - largest)).clamp_(0 if signed else 1, largest)
    if signed:
        codes_BK = torch.where(blocks_BK < 0, -codes_BK, codes_BK).to(torch.int8)
    else:
        codes_BK = torch.where(blocks_BK > 0, codes_BK, 0).to(torch.uint8)
    return codes_BK.view(-1)[: values_N.numel()], torch.where(most_B1 > 0, power_B1, 0.0).view(-1)


def decode_float(codes_N: Tensor, scale_B: Tensor) -> Tensor:
    """The fp32 values of small floats: with a sign if the codes are int8."""
    largest = _SIGNED if codes_N.dtype is torch.int8 else _UNSIGNED
    wide_N = codes_N.int()
    units_N = ((wide_N.abs() + (_ONE - largest)) << _CUT).view(torch.float32)
    return _scaled(torch.where(wide_N < 0, -units_N, units_N).mul_(wide_N != 0), scale_B)


def largest(scale_B: Tensor, *, linear: bool) -> Tensor:
    """A bound of the magnitudes that any codes give with these scales; infinite where fp32 has no room."""
    return scale_B * (_LINEAR + 1 if linear else 2)


def _blocks(values_N: Tensor) -> Tensor:
    """[blocks, BLOCK]; the last one is filled up with zeros."""
    missing = -values_N.numel() % BLOCK
    return (F.pad(values_N, (0, missing)) if missing else values_N).view(-1, BLOCK)


def _most(blocks_BK: Tensor) -> Tensor:
    return blocks_BK.abs().amax(dim=1, keepdim=True)


def _scaled(units_N: Tensor, scale_B: Tensor) -> Tensor:
    """Units of each block times its scale, in place."""
    whole = units_N.numel() - units_N.numel() % BLOCK
    units_N[:whole].view(-1, BLOCK).mul_(scale_B[: whole // BLOCK, None])
    if whole < units_N.numel():
        units_N[whole:].mul_(scale_B[-1])
    return units_N
