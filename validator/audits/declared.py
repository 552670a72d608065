"""The wide bounds that follow from a run's `audit.tolerance`, where no profile was measured."""

from __future__ import annotations

import math
from typing import Final

from iota.protocol.receipts import OpKind
from iota.spec import ComputeDtype, OptimizerKind, RunSpec
from validator.core.results import Bounds, Quantity

MAX_BOUND: Final = 0.5
"""No bound is above it, whatever a spec says: zeros, or twice the value, never pass."""
_BF16: Final = 10
"""bf16 compute is allowed so many times as much as fp32."""
_MUON: Final = 3
"""Muon is allowed so many times as much as AdamW and SGD: replays drift apart over a segment."""
_FACTORS: Final = {
    Quantity.ERROR: 1.0,
    Quantity.TOKEN: 3.0,
    Quantity.LOSS: 1.0,
    Quantity.NORM: 1.0,
    Quantity.MOMENTS: 1.0,
    Quantity.MOMENTS_TENSOR: 10.0,
    Quantity.ALONG: 3.0,
    Quantity.CHANGE: 30.0,
    Quantity.CHANGE_TENSOR: 50.0,
}
"""Bound of each quantity in units of `audit.tolerance`. A worst part is farther off than the whole. Muon's
orthogonalisation turns 1e-6 of the gradient into 1e-3 of the change, which grows with each step."""
_OUTPUT: Final = (Quantity.ERROR, Quantity.COSINE, Quantity.TOKEN)
COMPARED: Final = {
    OpKind.FORWARD: _OUTPUT,
    OpKind.BACKWARD: _OUTPUT,
    OpKind.LOSS: (*_OUTPUT, Quantity.LOSS),
    OpKind.STEP: (Quantity.NORM,),
    OpKind.COMMIT: (
        Quantity.MOMENTS,
        Quantity.MOMENTS_TENSOR,
        Quantity.ALONG,
        Quantity.CHANGE,
        Quantity.CHANGE_TENSOR,
    ),
}
"""What is compared of each op kind, in this order."""


def declared_bounds(spec: RunSpec) -> Bounds:
    """Each quantity's bound: its factor times `audit.tolerance`, at most 1/2.

    In bf16 compute it is 10 times as much, in fp32 with Muon 3 times.

    The cosine's is that of two tensors with the relative error's bound e: 1 - sqrt(1 - e²). SGD keeps no
    moments, and its change is as well conditioned as they are, so the change has the bounds of moments.
    """
    bf16, muon = spec.compute is ComputeDtype.BF16, spec.optimizer.kind is OptimizerKind.MUON
    unit = spec.audit.tolerance * (_BF16 if bf16 else _MUON if muon else 1)

    def bound(quantity: Quantity) -> float:
        if quantity is Quantity.COSINE:
            return 1 - math.sqrt(1 - bound(Quantity.ERROR) ** 2)
        if spec.optimizer.kind is OptimizerKind.SGD:
            quantity = _OF_SGD.get(quantity, quantity)
        return min(MAX_BOUND, unit * _FACTORS[quantity])

    return Bounds({(kind, each): bound(each) for kind, compared in COMPARED.items() for each in compared})


_OF_SGD: Final = {Quantity.CHANGE: Quantity.MOMENTS, Quantity.CHANGE_TENSOR: Quantity.MOMENTS_TENSOR}
