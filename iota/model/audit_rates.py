"""What the rates of audits come to in compute, and the rates that a share of the compute allows. Pure.

Per miner, with H steps an epoch, segments of L steps, windows of W epochs (docs/validator.md), m microbatches
a step: after the first public draw of a window each further epoch has a chance of one in W, so that a window
has (3W - 1) / 2W draws on average. An epoch that is longer than a window has k of them.

    segments a step = (3W - 1) / 2W / (W H)  or  k / H,  and 1 / (H * extra_every)
    compute         = L * (segments a step) + ops * (share of an op) / (H * m)
"""

from __future__ import annotations

import math
from typing import Final

from iota.model.layout import stage_flops
from iota.spec import AuditSpec, RunSpec

COMPUTE_BUDGET: Final = 0.03
"""Share of the swarm's compute that audits may take."""
_OWN: Final = 1 / 6
"""Share of the budget for the own draws of validators, where rates are made for it."""
_COMMITMENTS: Final = 10
"""Segments of an epoch that are proposed at the most: miners keep the states between them on their disks."""
_OP: Final = 2 / 3
"""Compute of an op audit, in microbatches: a BACKWARD is replayed with its FORWARD, which is a third."""


def segment_steps(spec: RunSpec) -> int:
    """Steps of a segment."""
    return min(spec.audit.commit_every, spec.schedule.steps)


def window_draws(spec: RunSpec) -> float:
    """Segments of one miner that the public draw names in `turn_steps`, on average."""
    epochs = spec.window_epochs
    return (3 * epochs - 1) / (2 * epochs)


def turn_steps(spec: RunSpec) -> float:
    """Steps in which the public draw names a segment of every miner for certain."""
    return spec.schedule.steps * spec.window_epochs / spec.epoch_windows


def public_compute(spec: RunSpec) -> float:
    """Share of the swarm's compute that the segments of the public draw take."""
    return segment_steps(spec) * window_draws(spec) / turn_steps(spec)


def own_compute(spec: RunSpec) -> float:
    """Share of the swarm's compute that the own draws of all validators take, without those for certain."""
    return segment_steps(spec) / (spec.schedule.steps * spec.audit.extra_every)


def op_compute(spec: RunSpec) -> float:
    """Share of the swarm's compute that audits of single ops take."""
    cuts, length = spec.layout.cuts, spec.data.sequence_length
    flops = [stage_flops(spec.model, cuts, s, length, spec.boundary) for s in range(len(cuts))]
    share = (sum(flops[:-1]) * _OP + flops[-1]) / sum(flops)  # the last stage's LOSS is a whole microbatch
    return spec.audit.ops * share / (spec.schedule.steps * spec.routed)


def rates_within(spec: RunSpec, budget: float) -> AuditSpec | None:
    """The run's audits with the smallest windows that keep them within a share of the compute.

    `commit_every`, `ops` and all that is no rate stay. None if single ops take it all.
    """
    audit, steps, length = spec.audit, spec.schedule.steps, segment_steps(spec)
    left = budget - op_compute(spec)
    if left <= 0:
        return None
    extra = math.ceil(length / (steps * left * _OWN))
    segments = (left - length / (steps * extra)) * steps / length  # an epoch, by the public draw
    if segments >= 1:
        window = steps // math.floor(segments)
        window += steps // window > segments  # rounded down, it may have one more
    else:  # the least W with (3W - 1) / 2W² of them
        window = steps * math.ceil((3 + math.sqrt(9 - 8 * segments)) / (4 * segments))
    return audit.model_copy(update={"extra_every": extra, "window_steps": window})


def least_score_window(spec: RunSpec) -> int:
    """The least `audit.window`, in epochs: work may wait for two windows of audits, and should count then."""
    return 2 * spec.window_epochs


def least_commit_every(spec: RunSpec) -> int:
    """The least `commit_every` that leaves no more states of an epoch than a miner's disk should keep."""
    return -(-spec.schedule.steps // _COMMITMENTS)
