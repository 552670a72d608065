"""How a run's optimizer treats each parameter: kind of update, weight decay, clipping. No torch."""

from __future__ import annotations

import math
from functools import lru_cache

from iota.codec.shapes import boundary_parameters
from iota.model.layout import stage_parameters
from iota.spec import OptimizerKind, OptimizerSpec, RunSpec

_MUON_RATE = 0.2
"""The root mean square of AdamW's updates, to which Muon's are scaled (Liu et al. 2025)."""
INITIAL_SPREAD = 3.5
"""Random initial weights are within so many standard deviations (`iota.model.initial_values`)."""
_UNDERFLOW = 2.0**-60
"""Gradients whose squares are subnormal are smaller than this."""
_CLAMPED_STEPS = 10_000
"""After so many steps the bound of AdamW's ratio grows no more, with the betas that are in use."""
_LARGEST_RATIO = 32.0
"""Of betas with which it grows without end."""


def uses_muon(spec: OptimizerSpec, name: str, dimensions: int) -> bool:
    """Whether a parameter is updated by Muon: hidden matrices are.

    Embeddings, head, anchors, norms and biases are updated by AdamW.
    """
    if spec.kind is not OptimizerKind.MUON or dimensions != 2:
        return False
    return name.startswith(("layers.", "boundary.")) and ".anchor." not in name


def muon_scale(rows: int, columns: int) -> float:
    """Factor of an orthogonal update of this shape, with which its root mean square is that of AdamW's."""
    return _MUON_RATE * math.sqrt(max(rows, columns))


@lru_cache(maxsize=64)
def adam_ratio(optimizer: OptimizerSpec, steps: int) -> float:
    """Upper bound of AdamW's |m| / (sqrt(v) + eps), bias-corrected, within `steps` steps of fresh moments.

    By Cauchy-Schwarz, for whatever gradients (`iota.outer.bounds`). The same on every machine.
    """
    one, two = optimizer.betas
    if one >= 1 or two >= 1 or (one > 0 and two == 0 and steps > 1):
        return math.inf
    ratio = one * one / two if two > 0 else 0.0
    terms, left_one, left_two, most = 0.0, 1.0, 1.0, 0.0
    for _ in range(steps):
        terms = 1.0 + ratio * terms
        left_one, left_two = left_one * one, left_two * two
        most = max(most, terms * (1 - left_two) / ((1 - left_one) * (1 - left_one)))
    return math.sqrt(most / (1 - two)) * (1 - one) + _UNDERFLOW / optimizer.eps


def largest_ratio(optimizer: OptimizerSpec) -> float:
    """What AdamW's ratio is clamped to where its moments are rounded: no gradients alone take it farther.

    Rounded moments could: a small v beside a large m that was rounded up.
    """
    return min(_LARGEST_RATIO, adam_ratio(optimizer, _CLAMPED_STEPS))


def weight_decay(spec: OptimizerSpec, dimensions: int) -> float:
    """Weight decay of a parameter: of matrices that of the spec, none of gains and biases."""
    return spec.weight_decay if dimensions >= 2 else 0.0


def clip_threshold(spec: RunSpec, stage: int) -> float:
    """The stage's bound c·sqrt(P_stage / P_model), with which the whole model's norm is at most c.

    It needs no communication between stages. Infinite if the run does not clip.
    """
    if spec.optimizer.clip is None:
        return math.inf
    parameters = stage_parameters(spec.model, spec.layout.cuts, spec.boundary)
    return spec.optimizer.clip * math.sqrt(parameters[stage] / sum(parameters))


def largest_start(spec: RunSpec, stage: int, name: str, dimensions: int) -> float:
    """Upper bound of a parameter's absolute values in base 0 of `stage`. Infinite where it is unknown."""
    if spec.init is not None:
        return math.inf if spec.init.largest is None else max(1.0, spec.init.largest)
    codec = boundary_parameters(spec.model, spec.boundary, stage, spec.layout.stages)
    if name in codec:
        return INITIAL_SPREAD * codec[name].std
    return INITIAL_SPREAD * spec.model.init_std if dimensions >= 2 else 1.0
