"""The memory that a validator's replays need: they follow from the spec. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from iota.console.sizes import in_gb
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
    """The state, its gradient sums and one graph, of recomputed layers: of one graph no policy keeps less."""
    host: int
    """Main memory besides: two states, the weights that it began with, and values of moments."""

    @property
    def on_cpu(self) -> int:
        """Memory of a machine that replays on its CPU."""
        return self.device + self.host + PROCESS_BYTES


def replay_needs(spec: RunSpec, stage: int, *, compiled: bool = False) -> ReplayNeeds:
    """The needs of a replay of `stage`; compiled layers keep less than others.

    A state is read as bytes and then as tensors. Where no bits are compared the replay's state, the miner's
    and the weights at the start are in main memory at once, and the fp32 values of one tensor of moments of
    both where these are kept in fewer bits. A base is merged and loaded as a miner does it; with overlap it
    stays beside the replays of its stage.
    """
    needs = stage_needs(spec, stage, compiled=compiled)
    start = spec.precision.weight_bytes * needs.parameters
    if spec.overlaps:  # the base, of which the own starts of all replicas are made
        start += _FP32 * (2 if spec.outer.momentum else 1) * needs.parameters
    largest = max(map(math.prod, run_shapes(spec, stage).values()))
    values = 0 if spec.optimizer.moments is Moments.FP32 else 2 * _FP32 * largest
    return ReplayNeeds(
        stage=stage,
        device=needs.memory_recomputing - (needs.graphs - 1) * needs.kept[Activations.RECOMPUTE].graph,
        host=max(2 * snapshot_bytes(spec, stage) + start + values, needs.loading),
    )


def unreplayable(spec: RunSpec, machine: Machine, *, compiled: bool = False) -> list[str]:
    """Why `machine` cannot replay every stage of a run, and what helps; nothing where it can."""
    stages = range(spec.layout.stages)
    every = [replay_needs(spec, stage, compiled=compiled) for stage in stages]
    most = max(every, key=lambda needs: needs.device)
    found = []
    if machine.card is not None and most.device > machine.card:
        found.append(
            f"a replay of stage {most.stage} needs {in_gb(most.device)} of the accelerator's memory, and it"
            f" has {in_gb(machine.card)}: take one with more, or give --device cpu on a machine with"
            f" {in_gb(max(replay_needs(spec, stage).on_cpu for stage in stages))} of memory"
        )
    most = max(every, key=lambda needs: needs.host + (needs.device if machine.card is None else 0))
    needed = most.on_cpu if machine.card is None else most.host + PROCESS_BYTES
    if needed > machine.memory:
        found.append(
            f"a replay of stage {most.stage} needs {in_gb(needed)} of memory, and there are"
            f" {in_gb(machine.memory)}: take a machine with more"
        )
    return found
