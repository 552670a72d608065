"""Changes of a spec with which a stage fits a machine that it does not fit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from iota.console.counts import counted
from iota.planning.fits import best_policy
from iota.planning.machine import Machine
from iota.planning.needs import stage_needs
from iota.settings import Activations
from iota.spec import GradientSums, Moments, OptimizerKind, Pipeline, Precision, RunSpec

_SHORTEST: Final = 512
"""Tokens of the shortest sequence that is proposed."""
Rung = tuple[str, RunSpec]
"""A change in words (assignments of `--set`, where it is one), and the spec with it."""


@dataclass(frozen=True)
class Ladder:
    """Changes of one kind, from the smallest: each needs no more memory than the one before."""

    length: int
    rung: Callable[[int], Rung]


def remedies(
    spec: RunSpec,
    stage: int,
    machine: Machine,
    *,
    compiled: bool,
    wanted: Activations = Activations.AUTO,
) -> list[str]:
    """What would make `stage` fit: each change that does by itself, else the first few that do together.

    Each is the smallest of its kind. Empty where not even all together do.
    """

    def fits(changed: RunSpec) -> bool:
        needs = stage_needs(changed, stage, compiled=compiled)
        return best_policy([needs], machine, wanted) is not None

    alone = [_first(ladder(spec), fits) for ladder in _ladders(stage)]
    if found := [text for text in alone if text is not None]:
        return found
    taken: list[str] = []
    for make in _ladders(stage):
        ladder = make(spec)
        if (text := _first(ladder, fits)) is not None:
            return [f"{', '.join(taken)} and {text} together"]
        if ladder.length:
            strongest, spec = ladder.rung(ladder.length - 1)
            taken.append(strongest)
    return []


def _first(ladder: Ladder, fits: Callable[[RunSpec], bool]) -> str | None:
    """The first rung that fits, by bisection: a stranger's spec may have 2^53 of them."""
    low, high = 0, ladder.length - 1
    if high < 0 or not fits(ladder.rung(high)[1]):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(ladder.rung(middle)[1]):
            high = middle
        else:
            low = middle + 1
    return ladder.rung(low)[0]


def _ladders(stage: int) -> list[Callable[[RunSpec], Ladder]]:
    """Kinds of changes, from what costs a run least."""
    return [
        partial(_credit, stage), _sequences, _moments, _sums, _precision, _optimizer, _pipeline, _length,
        partial(_layers, stage),
    ]  # fmt: skip


def _credit(stage: int, spec: RunSpec) -> Ladder:
    """Down to what keeps every stage busy; the last stage keeps one graph anyway."""
    most = min(spec.schedule.credit, spec.routed)
    least = min(spec.layout.stages, spec.routed) if stage < spec.layout.stages - 1 else most

    def rung(index: int) -> Rung:
        credit = most - 1 - index
        return f"schedule.credit={credit}", _with(spec, "schedule", credit=credit)

    return Ladder(max(0, most - least), rung)


def _sequences(spec: RunSpec) -> Ladder:
    """Smaller microbatches, and as many more of them a step."""

    def change(sequences: int, microbatches: int) -> Rung:
        changed = _with(_with(spec, "data", sequences=sequences), "schedule", microbatches=microbatches)
        return f"data.sequences={sequences} and schedule.microbatches={microbatches}", changed

    return _listed([change(*sizes) for sizes in smaller_microbatches(spec)])


def smaller_microbatches(spec: RunSpec) -> Iterator[tuple[int, int]]:
    """Sequences of a microbatch and microbatches of a step, halved and doubled: as many tokens a step."""
    sequences, microbatches = spec.data.sequences, spec.schedule.microbatches
    while sequences % 2 == 0:
        sequences, microbatches = sequences // 2, microbatches * 2
        yield sequences, microbatches


def _moments(spec: RunSpec) -> Ladder:
    fewer = {Moments.FP32: (Moments.BF16, Moments.INT8), Moments.BF16: (Moments.INT8,)}
    kept = spec.optimizer.kind is not OptimizerKind.SGD
    found = fewer.get(spec.optimizer.moments, ()) if kept else ()
    return _listed([(f"optimizer.moments={m}", _with(spec, "optimizer", moments=m)) for m in found])


def _sums(spec: RunSpec) -> Ladder:
    wide = spec.optimizer.gradient_sums is GradientSums.FP32
    changed = _with(spec, "optimizer", gradient_sums=GradientSums.BF16)
    return _listed([("optimizer.gradient_sums=bf16", changed)] * wide)


def _precision(spec: RunSpec) -> Ladder:
    wide = spec.precision.computes_bf16 and not spec.precision.holds_bf16
    changed = spec.model_copy(update={"precision": Precision.BF16_SR})
    return _listed([("precision=bf16-sr", changed)] * wide)


def _optimizer(spec: RunSpec) -> Ladder:
    changed = _with(spec, "optimizer", kind=OptimizerKind.MUON)
    return _listed([("optimizer.kind=muon", changed)] * (spec.optimizer.kind is OptimizerKind.ADAMW))


def _pipeline(spec: RunSpec) -> Ladder:
    changed = _with(spec, "schedule", pipeline=Pipeline.SYNC)
    return _listed([("schedule.pipeline=sync", changed)] * (spec.schedule.pipeline is Pipeline.DELAYED))


def _length(spec: RunSpec) -> Ladder:
    rungs, length = [], spec.data.sequence_length
    while (length := length // 2) >= _SHORTEST:
        rungs.append((f"data.sequence_length={length}", _with(spec, "data", sequence_length=length)))
    return _listed(rungs)


def _layers(stage: int, spec: RunSpec) -> Ladder:
    """Fewer layers at the stage alone; the others, or further stages, have the rest."""
    cuts = spec.layout.cuts

    def rung(index: int) -> Rung:
        layers = cuts[stage] - 1 - index
        changed = (*cuts[:stage], layers, *cuts[stage + 1 :])
        return f"{layers} instead of {counted(cuts[stage], 'layer')}", _with(spec, "layout", cuts=changed)

    return Ladder(cuts[stage] - 1, rung)


def _listed(rungs: Sequence[Rung]) -> Ladder:
    return Ladder(len(rungs), rungs.__getitem__)


def _with(spec: RunSpec, part: str, **values: Any) -> RunSpec:
    return spec.model_copy(update={part: getattr(spec, part).model_copy(update=values)})
