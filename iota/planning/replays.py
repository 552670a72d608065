"""The memory that a validator's replays need: they follow from the spec. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from iota.model.layout import run_shapes
from iota.objects import snapshot_bytes
from iota.planning.fits import PROCESS_BYTES
from iota.planning.machine import Machine
from iota.planning.needs import stage_needs
from iota.settings import Activations
from iota.spec import Moments, RunSpec

_FP32: Final = 4


@dataclass(frozen=True)
class ReplayNeeds:
    """What replays of one segment of a stage need, in bytes."""

    stage: int
    device: int
    """The state, its gradient sums and one graph, with layers recomputed or offloaded."""
    host: int
    """Main memory besides: two states, the weights that the segment began with, and values of moments."""


def replay_needs(spec: RunSpec, stage: int, *, compiled: bool = False) -> ReplayNeeds:
    """The needs of a replay of `stage`; compiled layers keep less between forward and backward.

    A state is read as bytes and then as tensors. Where no bits are compared the replay's state, the miner's
    and the weights at the start are in main memory at once, and the fp32 values of one tensor of moments of
    both where these are kept in fewer bits. A base is merged and loaded as a miner does it.
    """
    needs = stage_needs(spec, stage, compiled=compiled)
    least = min(
        needs.kept[policy].graph + needs.kept[policy].working
        for policy in (Activations.RECOMPUTE, Activations.OFFLOAD)
    )
    start = spec.precision.weight_bytes * needs.parameters
    largest = max(map(math.prod, run_shapes(spec, stage).values()))
    values = 0 if spec.optimizer.moments is Moments.FP32 else 2 * _FP32 * largest
    return ReplayNeeds(
        stage=stage,
        device=needs.weights + needs.gradients + needs.moments + least,
        host=max(2 * snapshot_bytes(spec, stage) + start + values, needs.loading),
    )


def unreplayable(spec: RunSpec, machine: Machine, *, compiled: bool = False) -> list[str]:
    """Why `machine` cannot replay every stage of a run, and what helps; nothing where it can."""
    every = [replay_needs(spec, stage, compiled=compiled) for stage in range(spec.layout.stages)]
    most = max(every, key=lambda needs: needs.device)
    found = []
    if machine.card is not None and most.device > machine.card:
        found.append(
            f"a replay of stage {most.stage} needs {_gb(most.device)} of the accelerator's memory, and it has"
            f" {_gb(machine.card)}: take one with more, or give --device cpu on a machine with"
            f" {_gb(most.device + most.host + PROCESS_BYTES)} of memory"
        )
    hosted = [needs.host + (needs.device if machine.card is None else 0) for needs in every]
    needed = PROCESS_BYTES + max(hosted)
    if needed > machine.memory:
        found.append(
            f"a replay of stage {hosted.index(max(hosted))} needs {_gb(needed)} of memory, and there are"
            f" {_gb(machine.memory)}: take a machine with more"
        )
    return found


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
