"""Muon's orthogonalisation: a matrix with its singular values brought near 1, by products of matrices alone.

With M = U S V^T the result is U f(S / s) V^T. f is the composition of four odd quintics, and s the Schatten
8-norm of M, which is at least the largest singular value. f is within 2 % of 1 from 0.01 to 1 and has the
slope 145 at 0: what is below 0.005 s stays smaller than the rest. Each quintic is the best approximation of
1 in the maximum norm on the interval to which those before it lead from [0.01, 1] ("Polar Express", Amsel et
al. 2025), with 4 % to spare for rounding. From an interval that begins lower, as many quintics reach smaller
directions and leave waves near 1; they are so steep that devices which round differently end far apart.

s is the root of the norm of G², with G = X X^T, which the first quintic needs anyway. It is within n^(1/8)
of the largest singular value; the Frobenius norm, by which Jordan's iteration (2024) scales, within n^(1/2).

In the plain form each quintic multiplies X. In the Gram form ("Gram Newton-Schulz", Zhang et al. 2026) two
are evaluated in G, of the shorter side, and X is multiplied once: half of the operations of a wide matrix.
Rounding in G hides the squares of small singular values. So it needs fp16, which is as fast as bf16 on GPUs
alone, and makes G anew after two quintics. Both forms compute f.

All factors are polynomials in G, hence symmetric: of large products only the blocks on and above the
diagonal are computed.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from iota.compute.devices import device_of

Quintic = tuple[float, float, float]
"""a, b and c of a x + b x³ + c x⁵."""

QUINTICS: Final[tuple[Quintic, Quintic, Quintic, Quintic]] = (
    (7.7821, -20.9985, 14.3395),
    (3.5212, -2.4438, 0.4458),
    (2.6304, -1.8304, 0.3868),
    (2.0093, -1.4183, 0.4112),
)
"""In order."""
EPSILON: Final = 1e-7
"""A matrix of a smaller Frobenius norm gives a result that fades out with it: it may be noise alone. Nothing
else of the result depends on the norm, in either form."""
_LEAST_NORM: Final = 1e-15
"""Norms are exact down to it: squares of its elements are not subnormal. What is smaller is nothing."""
_SIZE: Final = 128.0
"""Frobenius norm of X at first: neither X nor G overflows fp16, nor are their elements subnormal."""
_GRAM_SIZE: Final = 32.0
"""Frobenius norm of G in fp16, with which no term of a factor overflows."""
_LEAST: Final = 1.0
"""Lower bound of what is divided by. Only norms of a matrix below `_LEAST_NORM` are below it."""
_SPLIT_FROM: Final = 2048
"""Rows from which symmetric products are split; smaller ones are too short to gain by it."""
_BLOCKS: Final = 6
"""Row blocks of a symmetric product: 21 of 36 blocks are computed. On an H100 6 were faster than 4 and 8."""


def polar_dtype(device: torch.device) -> torch.dtype:
    """The dtype of factors on `device`; sums are in fp32. fp16 has the Gram form, bf16 the plain one."""
    return device_of(device).product_dtype


def polar_bytes(rows: int, columns: int, device: torch.device) -> int:
    """Upper bound of the memory that `polar` takes for one matrix, its input in fp32 included."""
    elements, short, item = rows * columns, min(rows, columns), polar_dtype(device).itemsize
    return max((4 + item) * elements, item * (2 * elements + 6 * short * short))


def polar(m_BRC: Tensor) -> Tensor:
    """The orthogonalised matrices, [B, R, C] in `polar_dtype`. `m_BRC` is fp32, and let go of early.

    The singular vectors are those of the matrix. Zero gives zero. A value that is not finite spreads over its
    matrix as NaN; a Frobenius norm that fp32 cannot hold gives zero.
    """
    norm_B11 = _norm(m_BRC)
    x_BRC = torch.empty_like(m_BRC, dtype=polar_dtype(m_BRC.device))
    torch.mul(m_BRC, _SIZE / norm_B11.clamp(min=_LEAST_NORM), out=x_BRC)
    del m_BRC
    form = _gram_form if x_BRC.dtype is torch.float16 else _plain_form
    return form(x_BRC).mul_((norm_B11 / EPSILON).clamp(max=1.0))


def _plain_form(x_BRC: Tensor) -> Tensor:
    """One quintic at a time."""
    gram_BNN = _gram(x_BRC)
    factor_BNN, unit_B11 = _first_factor(gram_BNN)
    x_BRC = _multiplied(x_BRC, factor_BNN, plus=QUINTICS[0][0])
    x_BRC.mul_(unit_B11.rsqrt())
    for quintic in QUINTICS[1:]:
        x_BRC = _multiplied(x_BRC, _factor(_gram(x_BRC), quintic), plus=quintic[0])
    return x_BRC


def _gram_form(x_BRC: Tensor) -> Tensor:
    """Two quintics at a time. G is scaled, so that G² does not overflow."""
    gram_BNN = _gram(x_BRC)
    size_B11 = _norm(gram_BNN).clamp(min=_LEAST)
    gram_BNN.mul_(_GRAM_SIZE / size_B11)
    factor_BNN, unit_B11 = _first_factor(gram_BNN)
    q_BNN = _two(gram_BNN.div_(unit_B11), factor_BNN, *QUINTICS[:2])
    x_BRC = _multiplied(x_BRC, q_BNN.mul_((unit_B11 * size_B11 / _GRAM_SIZE).rsqrt()))
    gram_BNN = _gram(x_BRC)
    return _multiplied(x_BRC, _two(gram_BNN, _factor(gram_BNN, QUINTICS[2]), *QUINTICS[2:]))


def _two(gram_BNN: Tensor, factor_BNN: Tensor, first: Quintic, second: Quintic) -> Tensor:
    """The matrix that applies two quintics to an X with this G; `factor_BNN` is that of the first."""
    factor_BNN.diagonal(dim1=-2, dim2=-1).add_(first[0])
    # With a factor on either side, so that the rounding of large eigenvalues is not multiplied twice.
    gram_BNN = _symmetric(_symmetric(factor_BNN, gram_BNN), factor_BNN)
    next_BNN = _factor(gram_BNN, second)
    next_BNN.diagonal(dim1=-2, dim2=-1).add_(second[0])
    return _symmetric(factor_BNN, next_BNN)


def _first_factor(gram_BNN: Tensor) -> tuple[Tensor, Tensor]:
    """b G / u + c (G / u)² for the first quintic, and the unit u, in which no eigenvalue is above 1."""
    _, b, c = QUINTICS[0]
    square_BNN = _symmetric(gram_BNN, gram_BNN)
    unit_B11 = _norm(square_BNN).sqrt().clamp(min=_LEAST)
    # Scaled last, since the terms cancel.
    return square_BNN.addcmul_(gram_BNN, unit_B11 * (b / c)).mul_(c / unit_B11.square()), unit_B11


def _factor(gram_BNN: Tensor, quintic: Quintic) -> Tensor:
    """b G + c G²."""
    _, b, c = quintic
    return _symmetric(gram_BNN, gram_BNN, plus_BNN=gram_BNN, beta=b, alpha=c)


def _is_wide(x_BRC: Tensor) -> bool:
    return x_BRC.shape[-2] <= x_BRC.shape[-1]


def _gram(x_BRC: Tensor) -> Tensor:
    return _symmetric(x_BRC, x_BRC.mT) if _is_wide(x_BRC) else _symmetric(x_BRC.mT, x_BRC)


def _multiplied(x_BRC: Tensor, factor_BNN: Tensor, plus: float = 0.0) -> Tensor:
    """The factor times X, and `plus` X."""
    pair = (factor_BNN, x_BRC) if _is_wide(x_BRC) else (x_BRC, factor_BNN)
    return _product(*pair, x_BRC, beta=plus) if plus else _product(*pair)


def _symmetric(
    a_BNK: Tensor, b_BKN: Tensor, plus_BNN: Tensor | None = None, beta: float = 0.0, alpha: float = 1.0
) -> Tensor:
    """alpha a b + beta plus, where a b is known to be symmetric."""
    count, rows, _ = a_BNK.shape
    if rows < _SPLIT_FROM:
        return _product(a_BNK, b_BKN, plus_BNN, beta, alpha)
    out_BNN = a_BNK.new_empty(count, rows, rows)
    height = -(-rows // _BLOCKS)
    for low in range(0, rows, height):
        high = min(low + height, rows)
        block = (slice(None), slice(low, high), slice(low, None))
        plus = None if plus_BNN is None else plus_BNN[block]
        _product(a_BNK[:, low:high], b_BKN[:, :, low:], plus, beta, alpha, out=out_BNN[block])
        out_BNN[:, high:, low:high] = out_BNN[:, low:high, high:].mT
    return out_BNN


def _product(
    a_BNK: Tensor,
    b_BKM: Tensor,
    plus_BNM: Tensor | None = None,
    beta: float = 0.0,
    alpha: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """alpha a b + beta plus."""
    if plus_BNM is None:
        return torch.bmm(a_BNK, b_BKM, out=out)
    return torch.baddbmm(plus_BNM, a_BNK, b_BKM, beta=beta, alpha=alpha, out=out)


def _norm(matrices: Tensor) -> Tensor:
    """Frobenius norms [B, 1, 1] in fp32."""
    norm_B11: Tensor = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    return norm_B11
