"""Sums in float64 in a fixed order of elementwise operations: the same bits on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from iota.outer.partition import Vector


def products(a_N: Vector, b_N: Vector) -> npt.NDArray[np.float64]:
    """The products of two fp32 vectors, which are exact."""
    found: npt.NDArray[np.float64] = a_N.astype(np.float64)
    np.multiply(found, b_N, out=found)
    return found


def fixed_sum(values_N: npt.NDArray[np.float64]) -> float:
    """The sum of a vector, by halves. The vector is used up."""
    while values_N.size > 1:
        half = (values_N.size + 1) // 2
        values_N[: values_N.size - half] += values_N[half:]
        values_N = values_N[:half]
    return float(values_N[0]) if values_N.size else 0.0
