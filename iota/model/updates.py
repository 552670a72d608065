"""How a run's optimizer treats each parameter: kind of update, weight decay, clipping. No torch."""

from __future__ import annotations

import math

from iota.codec.shapes import Shapes, boundary_parameters
from iota.model.layout import stage_parameters
from iota.spec import OptimizerKind, OptimizerSpec, RunSpec

_MUON_RATE = 0.2
"""The root mean square of AdamW's updates, to which Muon's are scaled (Liu et al. 2025)."""
INITIAL_SPREAD = 3.5
"""Random initial weights are within so many standard deviations (`iota.model.initial_values`)."""


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


def moment_kinds(spec: OptimizerSpec, name: str, dimensions: int) -> tuple[str, ...]:
    """The kinds of moments that a parameter has, by torch's names."""
    if spec.kind is OptimizerKind.SGD:
        return ()
    if uses_muon(spec, name, dimensions):
        return ("momentum_buffer",)
    return ("exp_avg", "exp_avg_sq", "step")


def moment_shapes(spec: OptimizerSpec, weights: Shapes) -> Shapes:
    """Shapes of the moments of these weights, sorted by name. A step count has shape ()."""
    shapes: Shapes = {}
    for name, shape in weights.items():
        for kind in moment_kinds(spec, name, len(shape)):
            shapes[f"{kind}.{name}"] = () if kind == "step" else shape
    return dict(sorted(shapes.items()))


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
