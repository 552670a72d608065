"""The wide bounds that follow from a run's `audit.tolerance`, where no profile was measured."""

from __future__ import annotations

import math
from typing import Final

from iota.protocol.receipts import OpKind
from iota.spec import GradientSums, Moments, OptimizerKind, RunSpec, WireDtype
from validator.core.results import Bounds, Quantity

MAX_BOUND: Final = 0.5
"""No bound is above it, whatever a spec says: zeros, or twice the value, never pass."""
_MAX_ROUNDED: Final = 0.75
"""The same of the change that Muon makes to bf16 weights, or from an int8 momentum. Zeros and twice the value
are off by 1."""
_ROUNDED: Final = (Quantity.CHANGE, Quantity.CHANGE_TENSOR)
_BF16: Final = 10
"""bf16 compute is allowed so many times as much as fp32."""
_MUON: Final = 3
"""Muon is allowed so many times as much as AdamW and SGD: replays drift apart over a segment."""
_LATER: Final = {
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
_FIRST: Final = {
    Quantity.ERROR: 0.05,
    Quantity.TOKEN: 1.0,
    Quantity.LOSS: 0.05,
    Quantity.NORM: 0.05,
    Quantity.MOMENTS: 0.05,
    Quantity.MOMENTS_TENSOR: 1.0,
}
"""The same of fp32 compute at depth 1, with any optimizer: the weights are equal to the bit there, and an op
is off by the order of its sums alone. bf16 compute is farther off."""
_STEPS_OF_MOMENTS: Final = {Moments.FP32: 0.0, Moments.BF16: 2.0**-7, Moments.INT8: 2.0**-3}
"""The largest step from one value of rounded moments to the next, as a share of it."""
_STEP_OF_SUMS: Final = 2.0**-7
"""The same of bf16 sums of gradients."""
_OF_MOMENTS: Final = (Quantity.MOMENTS, Quantity.MOMENTS_TENSOR)
_FLIPS: Final = 2.0
_ROUNDINGS: Final = {WireDtype.FP32: 1e-5, WireDtype.BF16: 2**-8, WireDtype.INT8: 1 / 127}
"""Relative error of a value that the wire rounds the other way (fp32: some roundings of the compute)."""
_LEAST: Final = 1e-4
"""Least bound of a number or a state: a smaller lie gains nothing."""
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


def declared_bounds(spec: RunSpec, depth: int) -> Bounds:
    """Each quantity's bound at a depth (`Profile.depths`): its factor times `audit.tolerance`, at most 1/2.

    The exception is Muon's change in `bf16-sr` or with int8 moments, at most 3/4. Where one token makes
    nearly all of a gradient, Muon's update is off by a third of it, most of that noise, and so is a third of
    the roundings.

    In bf16 compute it is 10 times as much, in fp32 with Muon 3 times. At depth 1 of fp32 compute what no
    update has changed has a narrower bound.

    Where moments or sums of gradients are rounded stochastically, those of two devices that are off by e
    leave another rounding, a whole step s away, in a share e/s of the elements: off by sqrt(e s) together.
    The bounds of moments have room for that. The partial sums of n microbatches have n/2 times that variance.

    The cosine's is that of two tensors with the relative error's bound e: 1 - sqrt(1 - e²). SGD keeps no
    moments, and its change is as well conditioned as they are, so the change has the bounds of moments; not
    where weights are rounded stochastically. There an update that is off by e leaves another rounding in a
    share e of the elements that it moves, which is sqrt(e) of the change.
    """
    bf16, muon = spec.precision.computes_bf16, spec.optimizer.kind is OptimizerKind.MUON
    few = spec.precision.holds_bf16 or spec.optimizer.moments is Moments.INT8
    rounded = _ROUNDED if muon and few else ()
    unit = spec.audit.tolerance * (_BF16 if bf16 else _MUON if muon else 1)
    first = {} if bf16 or depth > 1 else _FIRST

    def bound(quantity: Quantity) -> float:
        if quantity is Quantity.COSINE:
            return 1 - math.sqrt(1 - bound(Quantity.ERROR) ** 2)
        if spec.optimizer.kind is OptimizerKind.SGD and not spec.precision.holds_bf16:
            quantity = _OF_SGD.get(quantity, quantity)
        most = _MAX_ROUNDED if quantity in rounded else MAX_BOUND
        later = min(most, _stepped(spec, quantity, unit * _LATER[quantity]))
        if quantity not in first:
            return later
        exact = max(least_bound(spec, quantity), spec.audit.tolerance * first[quantity])
        return min(later, _stepped(spec, quantity, exact))

    return Bounds({(kind, each): bound(each) for kind, compared in COMPARED.items() for each in compared})


def _stepped(spec: RunSpec, quantity: Quantity, bound: float) -> float:
    """The bound of what is rounded stochastically, from that of the same before it is rounded."""
    if quantity not in _OF_MOMENTS:
        return bound
    if spec.optimizer.gradient_sums is GradientSums.BF16:
        bound = math.sqrt(bound**2 + bound * _STEP_OF_SUMS * max(1.0, spec.routed / 2))
    return math.sqrt(bound**2 + bound * _STEPS_OF_MOMENTS[spec.optimizer.moments])


def least_bound(spec: RunSpec, quantity: Quantity) -> float:
    """A distance that is no fault of anybody: what few values make that are rounded the other way.

    It is `_FLIPS` times what one makes that is all of its token. Fewer tokens show it more.
    """
    rounding = _FLIPS * _ROUNDINGS[spec.boundary.wire]
    match quantity:
        case Quantity.TOKEN:
            return rounding
        case Quantity.ERROR:
            return rounding / math.sqrt(spec.data.tokens)
        case Quantity.COSINE:
            return rounding**2 / spec.data.tokens / 2
        case _:
            return _LEAST


_OF_SGD: Final = {Quantity.CHANGE: Quantity.MOMENTS, Quantity.CHANGE_TENSOR: Quantity.MOMENTS_TENSOR}
