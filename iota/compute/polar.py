"""Muon's orthogonalisation: a matrix with its singular values brought near 1, by products of matrices alone.

With M = U S V^T the result is U f(S/s) V^T, where f is the composition of four odd quintics and s the Schatten
8-norm of M, which is at least its largest singular value. f is within 4 % of 1 from 0.008 to 1 and has the slope
162 at 0: directions that are smaller than 0.004 s stay smaller than the others. Each quintic is the best
approximation of 1 in the maximum norm on the interval to which those before it lead ("Polar Express", Amsel et
al. 2025), from 0.008 on, with 5 % to spare for rounding. A smaller start of the interval would reach smaller
directions with waves of larger amplitude near 1, where f is then so steep that two devices differ.

The iteration is in Gram form (Zhang et al., "Gram Newton-Schulz", 2026): the polynomials are evaluated in
G = X X^T, of the matrix's shorter side, and X is multiplied by the result. G's rounding hides the squares of small
singular values, so that it is made anew from the multiplied X after two quintics. All factors are polynomials
in G, hence symmetric; of large products only the blocks on and above the diagonal are computed.

The Schatten 8-norm is the root of |G²|, which the first quintic needs anyway. It is within n^(1/8) of the largest
singular value, where the Frobenius norm of Jordan's iteration (2024) is within n^(1/2).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

Quintic = tuple[float, float, float]
"""a, b and c of a x + b x³ + c x⁵."""

QUINTICS: Final[tuple[Quintic, Quintic, Quintic, Quintic]] = (
    (7.7851, -20.6800, 13.8684),
    (3.5890, -2.4409, 0.4318),
    (2.7796, -1.9065, 0.3820),
    (2.0882, -1.5040, 0.4232),
)
"""In order. G is made anew after two."""
EPSILON: Final = 1e-7
"""A matrix of a smaller Frobenius norm gives a result that fades out with it: it may be noise alone."""
_SIZE: Final = 128.0
"""Frobenius norm of X and of G in the working dtype: neither overflows fp16, nor are their elements subnormal."""
_LEAST: Final = 1e-3
"""Lower bound of what is divided by: it counts for matrices that fade out."""
_SPLIT_FROM: Final = 2048
"""Rows from which symmetric products are split; smaller ones are too short to gain by it."""
_BLOCKS: Final = 4
"""Row blocks of a symmetric product: 10 of 16 blocks are computed."""


def polar_dtype(device: torch.device) -> torch.dtype:
    """The dtype of products on `device`: fp16 where it has fast ones (sums are in fp32), else fp32."""
    return torch.float16 if device.type == "cuda" else torch.float32


def polar_bytes(rows: int, columns: int, device: torch.device) -> int:
    """Upper bound of the memory that `polar` takes for one matrix, its input in fp32 included."""
    short, item = min(rows, columns), polar_dtype(device).itemsize
    return 4 * rows * columns + item * (2 * rows * columns + 6 * short * short)


def polar(m_BRC: Tensor) -> Tensor:
    """The orthogonalised matrices, [B, R, C] in `polar_dtype`. `m_BRC` is fp32; it is overwritten.

    The singular vectors are those of the matrix. Zero gives zero. A value that is not finite spreads over its
    matrix as NaN; a Frobenius norm that fp32 cannot hold gives zero.
    """
    norm_B11 = _norm(m_BRC)
    x_BRC = m_BRC.mul_(_SIZE / norm_B11.clamp(min=EPSILON)).to(polar_dtype(m_BRC.device))
    gram_BNN = _gram(x_BRC)
    size_B11 = _norm(gram_BNN).clamp(min=_LEAST)
    gram_BNN.mul_(_SIZE / size_B11)
    square_BNN = _symmetric(gram_BNN, gram_BNN)
    largest_B11 = _norm(square_BNN).sqrt().clamp(min=1.0)
    gram_BNN.div_(largest_B11)
    square_BNN.div_(largest_B11.square())
    q_BNN = _multiplier(gram_BNN, square_BNN, *QUINTICS[:2])
    fading_B11 = (norm_B11 / EPSILON).clamp(max=1.0)
    q_BNN.mul_(fading_B11 * (largest_B11 * size_B11 / _SIZE).rsqrt())
    x_BRC = _multiplied(x_BRC, q_BNN)
    gram_BNN = _gram(x_BRC)
    return _multiplied(x_BRC, _multiplier(gram_BNN, _symmetric(gram_BNN, gram_BNN), *QUINTICS[2:]))


def _multiplier(gram_BNN: Tensor, square_BNN: Tensor, first: Quintic, second: Quintic) -> Tensor:
    """The matrix that applies two quintics to an X with this Gram matrix. `square_BNN` is overwritten."""
    p_BNN = _factor(gram_BNN, square_BNN, first)
    gram_BNN = _symmetric(_symmetric(p_BNN, gram_BNN), p_BNN)
    return _symmetric(p_BNN, _factor(gram_BNN, _symmetric(gram_BNN, gram_BNN), second))


def _factor(gram_BNN: Tensor, square_BNN: Tensor, quintic: Quintic) -> Tensor:
    """a + b G + c G², in the place of G²: scaled last, since its terms cancel."""
    a, b, c = quintic
    square_BNN.add_(gram_BNN, alpha=b / c).mul_(c).diagonal(dim1=-2, dim2=-1).add_(a)
    return square_BNN


def _gram(x_BRC: Tensor) -> Tensor:
    rows, columns = x_BRC.shape[-2:]
    return _symmetric(x_BRC, x_BRC.mT) if rows <= columns else _symmetric(x_BRC.mT, x_BRC)


def _multiplied(x_BRC: Tensor, q_BNN: Tensor) -> Tensor:
    rows, columns = x_BRC.shape[-2:]
    return _product(q_BNN, x_BRC) if rows <= columns else _product(x_BRC, q_BNN)


def _symmetric(a_BNK: Tensor, b_BKN: Tensor) -> Tensor:
    """The product of two matrices that is known to be symmetric."""
    count, rows, _ = a_BNK.shape
    if rows < _SPLIT_FROM:
        return _product(a_BNK, b_BKN)
    out_BNN = a_BNK.new_empty(count, rows, rows)
    height = -(-rows // _BLOCKS)
    for low in range(0, rows, height):
        high = min(low + height, rows)
        _product(a_BNK[:, low:high], b_BKN[:, :, low:], out_BNN[:, low:high, low:])
        out_BNN[:, high:, low:high] = out_BNN[:, low:high, high:].mT
    return out_BNN


def _product(a_BNK: Tensor, b_BKM: Tensor, out_BNM: Tensor | None = None) -> Tensor:
    return torch.bmm(a_BNK, b_BKM) if out_BNM is None else torch.bmm(a_BNK, b_BKM, out=out_BNM)


def _norm(matrices: Tensor) -> Tensor:
    """Frobenius norms [B, 1, 1] in fp32."""
    return torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True, dtype=torch.float32)
