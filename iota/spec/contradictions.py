"""Contradictions between the fields of a spec. Checked when a spec is made: older specs stay valid. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from iota.spec.parts import Decay, OptimizerKind
from iota.spec.run_spec import RunSpec
from iota.spec.spec_fields import spec_fields

MAX_OUTER_GAIN: Final = 10.0
"""Bound of eta / (1 - mu), the sum of what one pseudo-gradient moves; 7 with the usual 0.7 and 0.9."""
_UNUSED: Final[dict[str, tuple[Callable[[RunSpec], bool], str]]] = {
    "boundary.ratio": (
        lambda s: s.boundary.codec == "identity" and s.boundary.ratio != 1,
        "boundary.codec identity compresses nothing: leave the ratio out, or choose resbm-anchor",
    ),
    "boundary.hidden_ratio": (
        lambda s: s.boundary.codec == "identity",
        "boundary.codec identity has no maps: leave it out, or choose resbm-anchor",
    ),
    "boundary.anchor_rank": (
        lambda s: s.boundary.codec in ("identity", "resbm"),
        "only boundary.codec resbm-anchor has anchors: leave it out, or choose that codec",
    ),
    "optimizer.muon_momentum": (
        lambda s: s.optimizer.kind is not OptimizerKind.MUON,
        "optimizer.kind is not muon: leave it out, or choose muon",
    ),
    "optimizer.betas": (
        lambda s: s.optimizer.kind is OptimizerKind.SGD,
        "optimizer.kind sgd has no moments: leave them out, or choose adamw",
    ),
    "optimizer.moments": (
        lambda s: s.optimizer.kind is OptimizerKind.SGD,
        "optimizer.kind sgd has no moments: leave it out, or choose adamw or muon",
    ),
    "optimizer.final_lr": (
        lambda s: s.optimizer.decay is Decay.CONSTANT,
        "optimizer.decay is constant: leave it out, or choose cosine",
    ),
    "outer.momentum_warmup": (
        lambda s: s.outer.momentum == 0,
        "outer.momentum is 0: leave it out, or give a momentum",
    ),
    "outer.beta": (
        lambda s: not s.outer.codec.has_feedback,
        "outer.codec none sends everything: leave it out, or choose int8, sparse or sparse64",
    ),
}
"""Fields without an effect beside another one: refused where another value than the default was given."""


def contradictions(spec: RunSpec, given: Collection[str]) -> list[str]:
    """A sentence for each pair of fields that contradict each other; `given` are the paths that were set."""
    found = [
        f"{path} was given, and {why}"
        for path, (is_unused, why) in _UNUSED.items()
        if path in given and is_unused(spec) and _value(spec, path) != spec_fields()[path].default
    ]
    first, steps = spec.optimizer.first_step, spec.steps_before(spec.schedule.epochs)
    total = f"{f'optimizer.first_step {first} + ' if first else ''}schedule.epochs x schedule.steps = {steps}"
    warmup = spec.optimizer.warmup_steps
    if warmup and warmup >= steps:
        found.append(
            f"optimizer.warmup_steps {warmup} is not less than {total}: warm up over fewer steps, or train"
            " longer"
        )
    elif "optimizer.decay" in given and spec.optimizer.decay is Decay.COSINE and steps <= warmup + 1:
        found.append(
            f"optimizer.decay cosine has no step to decay over: of {total}, optimizer.warmup_steps {warmup}"
            " warm up: train longer, or choose constant"
        )
    busy = min(spec.layout.stages, spec.routed)
    if spec.schedule.credit < busy:
        found.append(
            f"schedule.credit {spec.schedule.credit} leaves some of the {spec.layout.stages} stages of"
            f" layout.cuts idle: give at least {busy}"
        )
    trained = spec.schedule.steps * spec.schedule.microbatches
    if spec.schedule.heldout > trained:
        found.append(
            f"schedule.heldout {spec.schedule.heldout} is more than an epoch's {trained} microbatches of"
            " training: give far fewer, or leave it out"
        )
    eta, mu = spec.outer.eta, spec.outer.momentum
    if eta >= MAX_OUTER_GAIN * (1 - mu):
        found.append(
            f"outer.momentum {mu:g} with outer.eta {eta:g} moves the weights {MAX_OUTER_GAIN:g} times as"
            " far as the miners did, or farther: lower one of them; 0.9 with 0.7 is usual"
        )
    return found


def unused(spec: RunSpec) -> set[str]:
    """The paths of values without an effect beside others of the spec."""
    return {path for path, (is_unused, _) in _UNUSED.items() if is_unused(spec)}


def _value(spec: RunSpec, path: str) -> object:
    found: object = spec
    for name in path.split("."):
        found = getattr(found, name)
    return found
