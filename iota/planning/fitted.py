"""The proposal of a spec for machines of a given memory: stages, cuts and the size of a microbatch. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

from iota.model.cuts import cheapest_cuts
from iota.model.layout import stage_flops
from iota.planning.fits import fit
from iota.planning.machine import Machine
from iota.planning.needs import stage_needs
from iota.planning.remedies import smaller_microbatches
from iota.spec import RunSpec
from iota.spec.draft import STAGES, Draft, merged, set_value, value_at

_CUTS = "layout.cuts"
_SEQUENCES, _MICROBATCHES = "data.sequences", "schedule.microbatches"


def fitted_spec(given: Draft, propose: Callable[[Draft], RunSpec], machine: Machine, flops: float) -> RunSpec:
    """The proposal for `given` with which each stage fits `machine`; as it is where none does.

    What is given stays. Else it has the fewest stages, no fewer than proposed, with which it fits, and then
    the cut and the microbatch whose slowest stage takes least time a token: a stage that holds more graphs
    than there is memory for has fewer layers or a slower activation policy. A step keeps its tokens.

    Args:
        propose: the spec for a draft (`iota.model.proposal.make_spec`).
        flops: FLOP/s that a stage reaches on the machine.
    """
    first = propose(given)
    free = value_at(given, STAGES) is None and value_at(given, _CUTS) is None
    for stages in range(first.layout.stages, first.model.layers + 1) if free else [first.layout.stages]:
        found = [
            candidate
            for draft in _microbatches(given, first)
            if (candidate := _with_cuts(draft, propose, stages, machine, flops)) is not None
        ]
        if found:
            return min(found, key=lambda spec: _slowest(spec, machine, flops))
    return first


def _microbatches(given: Draft, proposed: RunSpec) -> Iterator[Draft]:
    """The draft with the proposed size of a microbatch, then with smaller ones if it is free."""
    yield given
    if value_at(given, _SEQUENCES) is None and value_at(given, _MICROBATCHES) is None:
        for sequences, microbatches in smaller_microbatches(proposed):
            smaller: Draft = {}
            set_value(smaller, _SEQUENCES, sequences)
            set_value(smaller, _MICROBATCHES, microbatches)
            yield merged(given, smaller)


def _with_cuts(
    given: Draft, propose: Callable[[Draft], RunSpec], stages: int, machine: Machine, flops: float
) -> RunSpec | None:
    """The proposal with the best cut into `stages` that fits; None where none does."""
    cut: Draft = {}
    if value_at(given, _CUTS) is None:
        set_value(cut, STAGES, stages)
    spec = propose(merged(given, cut))
    if cut:
        cuts = cheapest_cuts(spec.model.layers, stages, _costs(spec, machine, flops))
        if cuts is None:
            return None
        cut = {}
        set_value(cut, _CUTS, list(cuts))
        given = {**given, "layout": {n: v for n, v in given.get("layout", {}).items() if n != "stages"}}
        spec = propose(merged(given, cut))
    return spec if math.isfinite(_slowest(spec, machine, flops)) else None


def _slowest(spec: RunSpec, machine: Machine, flops: float) -> float:
    cost = _costs(spec, machine, flops)
    return max(cost(stage, layers) for stage, layers in enumerate(spec.layout.cuts))


def _costs(spec: RunSpec, machine: Machine, flops: float) -> Callable[[int, int], float]:
    """Cost of a token at a stage with so many layers: FLOPs, and what its policy adds; infinite: no room."""
    last = spec.last_stage

    @cache
    def of_kind(stage: int, layers: int) -> float:
        cuts = (*spec.layout.cuts[:stage], layers, *spec.layout.cuts[stage + 1 :])
        cut = spec.model_copy(update={"layout": spec.layout.model_copy(update={"cuts": cuts})})
        found = fit(cut, stage_needs(cut, stage, compiled=machine.card is not None), machine, flops)
        if found.policy is None:
            return math.inf
        whole = stage_flops(cut.model, cuts, stage, cut.data.sequence_length, cut.boundary)
        return whole * (1 + found.slowdown)

    # Stages between the first and the last are alike.
    return lambda stage, layers: of_kind(stage if stage in (0, last) else 1, layers)
