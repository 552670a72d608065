"""The largest change that a replica's optimizer can make in an epoch: what is larger is no pseudo-gradient.

A bound follows from the spec, the epoch, and the step at which the replica joined; no weights are needed, so
whoever merges one partition has it. It holds for every honest run, whatever its gradients:

* AdamW (Kingma & Ba 2015; decoupled decay of Loshchilov & Hutter 2019) changes an element in a step by at
  most lr·(c + wd·|w|), where c bounds |m|/sqrt(v) of the bias-corrected moments. With m and v as sums of g
  and g², Cauchy-Schwarz gives c² = max over t of (1-b1)²·(1-b2^t)·S_t / ((1-b1^t)²·(1-b2)), where S_t is
  the sum of (b1²/b2)^j over j < t. For betas 0.9 and 0.95, c is 1.165. Where squares underflow, 2^-60/eps is
  added.
  Where moments are rounded, the optimizer itself clamps the ratio (`largest_ratio`).
* Muon's update is orthogonalised (Jordan 2024): no singular value is above `_SINGULAR`. With the rates of Liu
  et al. 2025 an element changes by at most lr·0.2·sqrt(max(A, B))·s, and the L2 norm over r rows of a matrix
  (A, B) by at most sqrt(min(r, A, B)) times that; decay as above. The other parameters have AdamW.
* SGD changes the L2 norm of the stage by at most lr·threshold in a step, if the run clips. Without clipping
  nothing is bounded, and only what is not finite is left out.

Weight decay and rounding depend on |w|. It is bounded by growth: from base 0, by the bounds of all epochs so
far and the outer step. With weight decay 0.1 this adds a tenth at first, and more as the weights may grow.
`ROUNDING` covers the optimizer's arithmetic, 2^-22·|w| a step that of the weights.

Weights that are rounded to bf16 stochastically move by up to 2^-7·|w| a step more. The roundings have the
mean 0 whatever came before, so that n of them sum to at most 2^-7·|w|·min(n, 5.3·sqrt(n)), but for a chance
of e^-56 (Azuma-Hoeffding). Over a run weights may grow by the exponential of that, with the outer step's gain
eta/(1 - mu) in the exponent; twice the size without roundings is the most that is allowed for, since it takes
all updates of the run in one direction, and a model whose weights roundings double has lost them. For one
element that is wide: what roundings may do to a large weight is a hundred times what an update does at a rate
of 1e-4. The n elements of a tensor together are moved far less, since a rounding is as rare as an update is
small: that of w + u has a variance of at most 2^-7·|w + u|·|u|. For updates whose L2 norms sum to D and
weights up to S the L2 norm R of all roundings has E R² <= V = 2^-7·S·sqrt(n)·D (Cauchy-Schwarz). R² is the
sum, over all roundings e, of e² and of 2·e times the sum of the element's roundings before. With U = 2^-7·S
and L = U·5.3·sqrt(steps) Freedman's inequality (1975) for both says R² <= V + (U + 2·L)·(sqrt(112·V) + 38·U),
but for a chance of 2·e^-56.

Every bound grows with each step's rate, so that it holds too where the operator has lowered rates: the live
factor is at most 1 (`iota.protocol.bridge`).

A codec with error feedback (`iota.outer.error_feedback`) sends x_e = beta·f + D_e, where f is no larger than
x_{e-1}, so that |x_e| <= X_e = sum over j of beta^(e-j)·bound_j, of every epoch since the run's first. All
that a replica sends is the sum of D_j + beta·f_j - f_{j+1}. With the outer step's factors, which grow to
eta/(1 - mu) with an update's age, that moves the base by no more than the changes do twice over and
3·eta/(1 - mu) times the largest X (summation by parts; |f_j| <= X_j, and (1 - beta) times the sum of X is at
most that of the changes). So weights grow where replicas keep their shares; where these change from merge to
merge it may be more, of a bound that takes all updates of the run in one direction. Codecs make nothing
larger, over each of their units (`DeltaCodec`). Where two tensors share one, as they do at their ends, the
largest of their bounds holds for each of its elements, since a scale serves both: always the same ones, so
that what grows there grows by that too. Roundings to bf16 of past epochs come back likewise: their norms R
are concave in D, so that the sum is W·R(sum / W), with W the sum of beta's powers.

What passes: every direction, the reverse too, up to full size. With AdamW each element may go the same way by
about lr in each step. An honest element goes a fraction of that, since its gradients change their sign; the
largest of a partition, with noise for gradients, half of it (20 steps). A lie within the bound is for audits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from iota.model.layout import run_shapes
from iota.model.updates import (
    adam_ratio,
    clip_threshold,
    largest_ratio,
    largest_start,
    muon_scale,
    uses_muon,
    weight_decay,
)
from iota.objects.delta_sizes import unit
from iota.outer.fixed_sums import fixed_sum, products
from iota.outer.partition import Vector
from iota.spec import Moments, OptimizerKind, RunSpec, StateRule

ROUNDING: Final = 1.01
"""Factor on every bound, for the rounding of the optimizer's arithmetic: far more than fp32 needs."""
_SINGULAR: Final = 1.35
"""Largest singular value of an orthogonalised update. Its polynomial (`iota/compute/polar.py`) is at most
1.02 on [0, 1]; the rest is for arithmetic in 16 bits."""
_ULP: Final = 2.0**-22
"""Rounding of a weight in one step, relative to it: an update has two roundings of 2^-24."""
_BF16_ULP: Final = 2.0**-7
"""The same of stochastic rounding to bf16."""
_LOG_CHANCE: Final = 56.0
"""What sums of roundings do with a chance of e^-56 is taken for impossible."""
_DEVIATIONS: Final = math.sqrt(_LOG_CHANCE / 2)
"""The sum of n roundings, each with a range of 1, exceeds this times sqrt(n) with that chance."""
_MOST: Final = math.log(2)
"""Largest exponent of a weight's growth by roundings."""


@dataclass(frozen=True)
class Bound:
    """The largest change of the elements [start, stop) of a partition."""

    tensor: str
    """Name of their tensor, of the first one where some share a codec's unit."""
    start: int
    stop: int
    element: float
    """Of one element's absolute value."""
    norm: float
    """Of the L2 norm over these elements; infinite where `element` says all."""

    def holds(self, part: Vector) -> bool:
        """Whether the finite partition `part` is within this bound: the same answer on every machine."""
        own = part[self.start : self.stop]
        if max(float(own.max()), -float(own.min())) > self.element:
            return False
        return self.norm == math.inf or fixed_sum(products(own, own)) <= self.norm * self.norm


@dataclass(frozen=True)
class _Way:
    """Coefficients of bounds that are linear in the start's size and in k, the change a unit of rate."""

    start: float
    rate: float

    def __add__(self, other: _Way) -> _Way:
        return _Way(self.start + other.start, self.rate + other.rate)

    def times(self, factor: float) -> _Way:
        return _Way(self.start * factor, self.rate * factor)

    def after(self, base: _Way) -> _Way:
        """This way, from a start whose size is bounded by `base`."""
        return base.times(self.start) + _Way(0.0, self.rate)

    def of(self, start: float, k: float) -> float:
        """The bound. Infinite for an infinite start or k."""
        return math.inf if math.inf in (start, k) else self.start * start + self.rate * k


@dataclass(frozen=True)
class _Walk:
    """Bounds of |v_joined - v_H|, and of what is sent besides, from a size in base 0 and k."""

    updates: _Way
    """Of what updates alone change."""
    past: _Way
    """Of what those of earlier epochs changed and is not sent yet, decayed."""
    size: _Way
    """Of the weights meanwhile, and before."""
    rounded: float
    """Of the sum of a weight's stochastic roundings, relative to its size; 0 where there are none."""
    past_rounded: float
    """The same of one earlier epoch."""
    past_epochs: float
    """Sum of the weights that earlier epochs have in what is sent."""

    def bounds(self, begin: float, element: float, norm: float, count: int) -> tuple[float, float]:
        """Of each of `count` elements, and of their L2 norm: infinite where the elements' say all.

        Args:
            begin: the largest size of an element in base 0.
            element, norm: largest update of a step at rate 1: of an element, and in the L2 norm.
        """
        root, sent = math.sqrt(count), self.updates + self.past
        if not self.rounded:
            return sent.of(begin, element), (math.inf if norm == math.inf else sent.of(begin * root, norm))
        size, steps = self.size.of(begin, element), (begin * root, min(norm, element * root))
        moved, before = self.updates.of(*steps), self.past.of(*steps)
        total = moved + before + self._rounded_norm(size, root, moved, self.rounded)
        if self.past_epochs:
            mean = before / self.past_epochs
            total += self.past_epochs * self._rounded_norm(size, root, mean, self.past_rounded)
        rounded = self.rounded + self.past_epochs * self.past_rounded
        return sent.of(begin, element) + size * rounded, total

    @staticmethod
    def _rounded_norm(size: float, root: float, moved: float, rounded: float) -> float:
        """R of the module's description: of root² elements, whose updates sum to the L2 norm `moved`."""
        if math.inf in (size, moved):
            return math.inf
        unit, sums = _BF16_ULP * size, size * rounded
        variance = unit * root * moved
        beyond = math.sqrt(2 * _LOG_CHANCE * variance) + 2 / 3 * _LOG_CHANCE * unit
        return min(root * sums, math.sqrt(variance + (unit + 2 * sums) * beyond))


@dataclass(frozen=True)
class _Piece:
    """Elements [low, high) of one tensor."""

    name: str
    shape: tuple[int, ...]
    low: int
    high: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.high - self.low

    def cut(self, start: int, stop: int) -> _Piece:
        """Its elements [start, stop), as far as it has them; none where `stop` is not above `start`."""
        start = min(start, self.size)
        stop = max(start, min(stop, self.size))
        return _Piece(self.name, self.shape, self.low + start, self.low + stop)


def part_bounds(spec: RunSpec, epoch: int, stage: int, part: int, joined: int) -> list[Bound]:
    """Bounds of partition `part` of a decoded pseudo-gradient.

    `joined` is the step at which the replica's version was the base.
    """
    bounds, at = [], 0
    for pieces in _regions(spec, stage, part):
        stop = at + sum(piece.size for piece in pieces)
        element, norm = _region_bounds(spec, epoch, stage, joined, pieces)
        bounds.append(Bound(pieces[0].name, at, stop, _coarse(element), _coarse(norm)))
        at = stop
    return bounds


def _regions(spec: RunSpec, stage: int, part: int) -> Iterator[list[_Piece]]:
    """The pieces of tensors in a partition, in order: those that share a unit of the codec together."""
    first, at = part * spec.outer.part_elements, 0
    pieces = []
    for name, shape in run_shapes(spec, stage).items():
        size = math.prod(shape)
        low, high = max(first, at), min(first + spec.outer.part_elements, at + size)
        if low < high:
            pieces.append(_Piece(name, shape, low - at, high - at))
        at += size
    each, at = unit(spec.outer.codec), 0
    shared: list[_Piece] = []
    for piece in pieces:
        # Where the unit ends that began with another tensor, and where one begins that another one ends.
        begun = piece.cut(0, -at % each if shared else 0)
        whole = piece.cut(begun.size, piece.size - (0 if piece is pieces[-1] else (at + piece.size) % each))
        rest = piece.cut(begun.size + whole.size, piece.size)
        shared += [begun] if begun.size else []
        if shared and (piece is pieces[-1] or (at + begun.size) % each == 0):
            yield shared
            shared = []
        if whole.size:
            yield [whole]
        shared += [rest] if rest.size else []
        at += piece.size


def _region_bounds(
    spec: RunSpec, epoch: int, stage: int, joined: int, pieces: Sequence[_Piece]
) -> tuple[float, float]:
    """(element, norm): bounds of pieces that share what is largest in any of them."""
    rates = [_rates(spec, epoch, stage, p.name, p.shape, p.low, p.high) for p in pieces]
    begin = max(largest_start(spec, stage, p.name, len(p.shape)) for p in pieces)
    walk = _walk(spec, epoch, joined, max(weight_decay(spec.optimizer, len(p.shape)) for p in pieces))
    norm = rates[0][1]
    if len(pieces) > 1 and any(n < math.inf for _, n in rates):
        sizes = [min(n, e * math.sqrt(p.size)) for (e, n), p in zip(rates, pieces, strict=True)]
        norm = math.hypot(*sizes)
    return walk.bounds(begin, max(e for e, _ in rates), norm, sum(p.size for p in pieces))


def _rates(
    spec: RunSpec, epoch: int, stage: int, name: str, shape: tuple[int, ...], low: int, high: int
) -> tuple[float, float]:
    """(element, norm): the largest update of a step at rate 1, without decay, of elements [low, high)."""
    if spec.optimizer.kind is OptimizerKind.SGD:
        threshold = clip_threshold(spec, stage)
        return threshold, threshold
    if not uses_muon(spec.optimizer, name, len(shape)):
        if spec.optimizer.moments is not Moments.FP32:
            return largest_ratio(spec.optimizer), math.inf
        steps = spec.schedule.steps * (1 if spec.optimizer.state is StateRule.RESET else epoch + 1)
        return adam_ratio(spec.optimizer, steps), math.inf
    rows, columns = shape
    touched = (high - 1) // columns - low // columns + 1
    element = muon_scale(rows, columns) * _SINGULAR
    return element, element * math.sqrt(min(touched, rows, columns))


@lru_cache(maxsize=256)
def _walk(spec: RunSpec, epoch: int, joined: int, decay: float) -> _Walk:
    """Bounds of a replica's way from the base of `epoch` on, where it joined at step `joined`."""
    base, held = _growth(spec, epoch, decay)
    rounded = _rounded_away(spec, spec.schedule.steps - joined)
    change, size = _updates(spec, epoch, joined, decay * math.exp(rounded))
    size = size.times(math.exp(rounded))
    beta = _beta(spec)
    return _Walk(
        updates=change.after(base),
        past=held.times(beta),
        size=size.after(base),
        rounded=rounded,
        past_rounded=_rounded_away(spec, spec.schedule.steps),
        past_epochs=beta * (1 - beta**epoch) / (1 - beta),
    )


def _beta(spec: RunSpec) -> float:
    return spec.outer.beta if spec.outer.codec.has_feedback else 0.0


def _updates(
    spec: RunSpec, epoch: int, joined: int, decay: float, *, merged: bool = False
) -> tuple[_Way, _Way]:
    """Bounds of the change in one epoch's steps from `joined` on, from the size of the base and k, and of the
    largest size then; without stochastic roundings.

    `merged`: of a merge. Its weights times steps add up to the most steps at most (`weighted_mean`), of
    whichever steps of the epoch, so that each has the largest rate.
    """
    nearest = _BF16_ULP / 2 if spec.precision.holds_bf16 else 0.0
    size, change = _Way(1.0 + nearest, 0.0), _Way(0.0, 0.0)
    rates = [spec.learning_rate(epoch, step) for step in range(joined, spec.schedule.steps)]
    for rate in [max(rates)] * len(rates) if merged else rates:
        change += size.times(rate * decay + _ULP) + _Way(0.0, rate)
        # Decay shrinks a weight, but not for sure: a replica may not have made the step.
        size = size.times(max(1.0, rate * decay - 1.0) + _ULP) + _Way(0.0, rate)
    return change, size


def _rounded_away(spec: RunSpec, steps: int) -> float:
    """Bound of the sum of a weight's stochastic roundings in so many steps, relative to its size."""
    if not spec.precision.holds_bf16:
        return 0.0
    return _BF16_ULP * min(steps, _DEVIATIONS * math.sqrt(steps))


@lru_cache(maxsize=16)
def _growth(spec: RunSpec, epoch: int, decay: float) -> tuple[_Way, _Way]:
    """Bounds of |W| at the start of `epoch` and of what may not be sent by then, from base 0's size and k."""
    size, momentum, held, most = (_Way(1.0, 0.0), *[_Way(0.0, 0.0)] * 3)
    eta, beta, away = spec.outer.eta, _beta(spec), _rounded_away(spec, spec.schedule.steps)
    gain = eta / (1.0 - spec.outer.momentum) if spec.outer.momentum < 1 else eta * (epoch + 1)
    for number in range(epoch):
        whole = size + most.times(3 * gain)
        (inner, _), mu = _updates(spec, number, 0, decay, merged=True), spec.outer.momentum_at(number)
        change = inner.after(whole)
        if beta:
            sent = _updates(spec, number, 0, decay * math.exp(away), merged=True)[0] if away else inner
            held, change = held.times(beta) + sent.after(whole), change.times(2.0)
            most = _Way(max(most.start, held.start), max(most.rate, held.rate))
        momentum = momentum.times(mu) + change
        # W - eta·(D + mu·m), where D is no larger than a replica's change at these rates.
        size = size.times(1.0 + _ULP) + (change + momentum.times(mu)).times(eta)
    walk, twice = _rounded_away(spec, epoch * spec.schedule.steps), 2.0 if beta else 1.0
    exponent = min(_MOST, walk * gain * twice) if spec.outer.momentum < 1 else _MOST
    factor = math.exp(exponent) if walk else 1.0
    return (size + most.times(3 * gain)).times(factor), held.times(factor)


def _coarse(bound: float) -> float:
    """`bound` with `ROUNDING`, to four digits: machines whose cosines differ in the last bit agree on it."""
    return float(f"{bound * ROUNDING:.4g}")
