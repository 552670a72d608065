"""How far what a miner sent or committed is from a replay. A distance is 0 for equal values.

Distances are of whole tensors. Sums are taken in float64 over blocks, so that the memory used does not
depend on a tensor's size. NaN, Inf, other shapes, and anything where the replay has nothing but zeros, are
infinitely far: no value makes a function here raise, or come out near by accident. What is below `TINY`
counts as zero: whether a device rounds it to zero is no fault.

Some distances take the worst of many parts (tokens, tensors). A part is measured against its own norm, but
at least against a floor that follows from the others: the rounding of a part that is all but zero is not a
fault, and a lie in it cannot be larger than the floor lets it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

FLOOR: Final = 1e-3
"""Least root mean square by which a tensor is measured, as a share of that of all tensors of its group."""
GIVEN_FLOOR: Final = 0.1
"""Least norm by which what an op sends is measured, as a share of that of the frame that it read. A stage
adds to what it reads: a neighbour that knows the weights can send what comes out all but zero, and then the
rounding of the sum is most of what is left."""
ROUNDED: Final = 2 * math.sqrt(32) * 2.0**-7
"""Least norm by which a change of bf16 weights is measured, as a share of their root mean square. Each goes a
whole step of 2^-7 of it or none, and devices whose updates differ a little differ in a few steps: 32 of them
are half of this norm. Of a gain vector whose weights go 4 steps in all, one that falls otherwise is half."""
TINY: Final = 1e-33
"""Norms and differences up to this are zero. A neighbour may send values that some devices flush to zero: of
a billion elements below fp32's least normal number the norm is smaller."""
_BLOCK: Final = 1 << 20
"""Elements that are converted to float64 at a time: 8 MiB."""


@dataclass(frozen=True)
class Worst:
    """The largest distance of several parts."""

    distance: float
    place: str = ""
    """Which part it is."""


@dataclass
class Sums:
    """Sums over the elements of a replayed tensor, of another one, and optionally of a direction."""

    elements: int = 0
    mine: float = 0.0
    """Of the squares of the replayed values."""
    theirs: float = 0.0
    difference: float = 0.0
    """Of the squares of theirs - mine."""
    product: float = 0.0
    """Of theirs · mine."""
    direction: float = 0.0
    """Of the squares of the direction."""
    along: float = 0.0
    """Of (theirs - mine) · direction."""
    rounded: float = 0.0
    """Of the squares of the start, where it is bf16."""

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def least(self) -> float:
        """Least norm by which this tensor's change is measured, by the roundings of its weights."""
        return ROUNDED * math.sqrt(self.rounded / self.elements) if self.rounded else 0.0

    @property
    def error(self) -> float:
        """|theirs - mine| / |mine|."""
        return self.error_by(0.0)

    def error_by(self, floor: float) -> float:
        """|theirs - mine| / max(|mine|, floor)."""
        return ratio(math.sqrt(self.difference), max(math.sqrt(self.mine), floor))

    @property
    def cosine(self) -> float:
        """1 - cosine between the two; symmetric. Infinite where one is zero and the other not."""
        norms = math.sqrt(self.mine) * math.sqrt(self.theirs)
        if max(self.mine, self.theirs) <= TINY**2:
            return 0.0
        if norms == 0:
            return math.inf
        return max(0.0, 1 - self.product / norms) if math.isfinite(self.difference) else math.inf


NOT_COMPARABLE: Final = Sums(mine=math.nan, theirs=math.nan, difference=math.nan)
"""The sums of tensors of different shapes."""


def ratio(difference: float, size: float) -> float:
    """difference / size: 0 for no difference, infinite if `size` alone is 0, and for what is not finite."""
    if not (math.isfinite(difference) and math.isfinite(size)):
        return math.inf
    if difference <= TINY:
        return 0.0
    return difference / size if size > 0 else math.inf


def number_error(theirs: float | None, mine: float) -> float:
    """|theirs - mine| / |mine|, of a loss or a norm; infinite for None."""
    return math.inf if theirs is None else ratio(abs(theirs - mine), abs(mine))


def sums(theirs: Tensor, mine: Tensor, start: Tensor | None = None, direction: Tensor | None = None) -> Sums:
    """Sums of two tensors of one shape, or of their differences from `start`. On the CPU, of real dtypes."""
    others = [tensor for tensor in (start, direction) if tensor is not None]
    if any(tensor.shape != mine.shape for tensor in (theirs, *others)):
        return NOT_COMPARABLE
    found = Sums(elements=mine.numel())
    flat = [None if t is None else t.detach().reshape(-1) for t in (theirs, mine, start, direction)]
    for low in range(0, mine.numel(), _BLOCK):
        a, b, origin, line = (None if t is None else t[low : low + _BLOCK].double() for t in flat)
        assert a is not None
        assert b is not None
        if origin is not None:
            a, b = a - origin, b - origin
            if start is not None and start.dtype is torch.bfloat16:
                found.rounded += _dot(origin, origin)
        apart = a - b
        found.mine += _dot(b, b)
        found.theirs += _dot(a, a)
        found.difference += _dot(apart, apart)
        found.product += _dot(a, b)
        if line is not None:
            found.direction += _dot(line, line)
            found.along += _dot(apart, line)
    return found


def worst_token(theirs_BTK: Tensor, mine_BTK: Tensor, floor_N: Tensor | None = None) -> Worst:
    """The largest |a_t - b_t| / max(|b_t|, floor) over tokens t, of boundary tensors (B, T, k).

    a_t and b_t are the k values of a token. The floor is the median of all |b_t|, the norm of a typical
    token, and at least `FLOOR` times their root mean square: a neighbour can send zeros for half of them.

    Args:
        floor_N: a floor of each token's own, float64 (B·T,).
    """
    if theirs_BTK.shape != mine_BTK.shape or mine_BTK.numel() == 0:
        return Worst(math.inf, "all tokens")
    width = mine_BTK.shape[-1]
    apart_N, norm_N = _row_norms(theirs_BTK.reshape(-1, width), mine_BTK.reshape(-1, width))
    if not bool(apart_N.isfinite().all() and norm_N.isfinite().all()):
        return Worst(math.inf, f"token {int((~(apart_N + norm_N).isfinite()).nonzero()[0])}")
    least = max(float(norm_N.median()), FLOOR * float(norm_N.square().mean().sqrt()))
    size_N = norm_N.clamp(min=least)
    if floor_N is not None:
        size_N = size_N.maximum(floor_N)
    errors_N = torch.where(apart_N <= TINY, 0.0, apart_N / size_N)
    at = int(errors_N.argmax())
    return Worst(float(errors_N[at]), f"token {at}")


def token_norms(x_BTK: Tensor) -> Tensor:
    """|x_t| of each token of a boundary tensor (B, T, k), float64 (B·T,)."""
    rows_NK = x_BTK.reshape(-1, x_BTK.shape[-1])
    return _row_norms(rows_NK, rows_NK)[1]


def worst_error(parts: Mapping[str, Sums]) -> Worst:
    """The largest |a_i - b_i| / max(|b_i|, floor_i) over tensors i.

    floor_i is the norm of a tensor of i's size at `FLOOR` times the root mean square of all values of b, and
    at least what roundings of its bf16 weights may be (`ROUNDED`).
    """
    sizes = _change_sizes(parts)
    return _worst({name: ratio(math.sqrt(part.difference), sizes[name]) for name, part in parts.items()})


def worst_along(parts: Mapping[str, Sums]) -> Worst:
    """The largest |<a_i - b_i, M_i>| / (|b_i| |M_i|) over tensors i, with floors as in `worst_error`.

    a and b are changes of the weights, M the direction: the momentum that the changes were made from. It is
    the part of the difference that lies along M, in units of the change.
    """
    sizes = _change_sizes(parts)
    lines = _sizes({name: (part.direction, part.elements) for name, part in parts.items()})
    return _worst({name: ratio(abs(p.along), sizes[name] * lines[name]) for name, p in parts.items()})


def _change_sizes(parts: Mapping[str, Sums]) -> dict[str, float]:
    sizes = _sizes({name: (part.mine, part.elements) for name, part in parts.items()})
    return {name: max(size, parts[name].least) for name, size in sizes.items()}


def _sizes(squares: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """Norm of each tensor from its sum of squares and its elements, and at least its floor."""
    total, elements = (sum(column) for column in zip(*squares.values(), strict=True)) if squares else (0, 0)
    mean_square = total / elements if elements else 0.0
    return {
        name: math.sqrt(max(square, FLOOR**2 * mean_square * count))
        for name, (square, count) in squares.items()
    }


def _worst(distances: Mapping[str, float]) -> Worst:
    if not distances:
        return Worst(0.0)
    place = max(distances, key=lambda name: distances[name])
    return Worst(distances[place], place)


def _row_norms(theirs_NK: Tensor, mine_NK: Tensor) -> tuple[Tensor, Tensor]:
    """|a_n - b_n| and |b_n| of each row, in float64."""
    rows = max(1, _BLOCK // max(1, mine_NK.shape[1]))
    apart, norm = [], []
    for a_NK, b_NK in _row_blocks(theirs_NK, mine_NK, rows):
        apart.append(torch.linalg.vector_norm(a_NK - b_NK, dim=1))
        norm.append(torch.linalg.vector_norm(b_NK, dim=1))
    return torch.cat(apart), torch.cat(norm)


def _row_blocks(theirs_NK: Tensor, mine_NK: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    for low in range(0, mine_NK.shape[0], rows):
        yield theirs_NK[low : low + rows].double(), mine_NK[low : low + rows].double()


def _dot(a_N: Tensor, b_N: Tensor) -> float:
    return float(torch.dot(a_N, b_N))
