"""Changes of a spec with which a stage fits a machine that it does not fit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
    for ladder in _ladders(stage):
        if (text := _first(ladder(spec), fits)) is not None:
            return [f"{', '.join(taken)} and {text} together"]
        for strongest, changed in list(ladder(spec))[-1:]:
            taken.append(strongest)
            spec = changed
    return []


def _first(rungs: Iterable[Rung], fits: Callable[[RunSpec], bool]) -> str | None:
    return next((text for text, changed in rungs if fits(changed)), None)


def _ladders(stage: int) -> list[Callable[[RunSpec], Iterator[Rung]]]:
    """Kinds of changes, from what costs a run least; each ladder begins with its smallest change."""
    return [
        _credit, _sequences, _moments, _sums, _precision, _optimizer, _pipeline, _length,
        partial(_layers, stage),
    ]  # fmt: skip


def _credit(spec: RunSpec) -> Iterator[Rung]:
    """Down to what keeps every stage busy."""
    for credit in range(spec.schedule.credit - 1, min(spec.layout.stages, spec.routed) - 1, -1):
        yield f"schedule.credit={credit}", _with(spec, "schedule", credit=credit)


def _sequences(spec: RunSpec) -> Iterator[Rung]:
    """Smaller microbatches, and as many more of them a step."""
    for sequences, microbatches in smaller_microbatches(spec):
        changed = _with(_with(spec, "data", sequences=sequences), "schedule", microbatches=microbatches)
        yield f"data.sequences={sequences} and schedule.microbatches={microbatches}", changed


def smaller_microbatches(spec: RunSpec) -> Iterator[tuple[int, int]]:
    """Sequences of a microbatch and microbatches of a step, halved and doubled: as many tokens a step."""
    sequences, microbatches = spec.data.sequences, spec.schedule.microbatches
    while sequences % 2 == 0:
        sequences, microbatches = sequences // 2, microbatches * 2
        yield sequences, microbatches


def _moments(spec: RunSpec) -> Iterator[Rung]:
    if spec.optimizer.kind is OptimizerKind.SGD:
        return
    fewer = {Moments.FP32: (Moments.BF16, Moments.INT8), Moments.BF16: (Moments.INT8,)}
    for moments in fewer.get(spec.optimizer.moments, ()):
        yield f"optimizer.moments={moments}", _with(spec, "optimizer", moments=moments)


def _sums(spec: RunSpec) -> Iterator[Rung]:
    if spec.optimizer.gradient_sums is GradientSums.FP32:
        yield "optimizer.gradient_sums=bf16", _with(spec, "optimizer", gradient_sums=GradientSums.BF16)


def _precision(spec: RunSpec) -> Iterator[Rung]:
    if spec.precision.computes_bf16 and not spec.precision.holds_bf16:
        yield "precision=bf16-sr", spec.model_copy(update={"precision": Precision.BF16_SR})


def _optimizer(spec: RunSpec) -> Iterator[Rung]:
    if spec.optimizer.kind is OptimizerKind.ADAMW:
        yield "optimizer.kind=muon", _with(spec, "optimizer", kind=OptimizerKind.MUON)


def _pipeline(spec: RunSpec) -> Iterator[Rung]:
    if spec.schedule.pipeline is Pipeline.DELAYED:
        yield "schedule.pipeline=sync", _with(spec, "schedule", pipeline=Pipeline.SYNC)


def _length(spec: RunSpec) -> Iterator[Rung]:
    length = spec.data.sequence_length
    while (length := length // 2) >= _SHORTEST:
        yield f"data.sequence_length={length}", _with(spec, "data", sequence_length=length)


def _layers(stage: int, spec: RunSpec) -> Iterator[Rung]:
    """Fewer layers at the stage alone; the others, or further stages, have the rest."""
    cuts = spec.layout.cuts
    for layers in range(cuts[stage] - 1, 0, -1):
        changed = (*cuts[:stage], layers, *cuts[stage + 1 :])
        yield f"{layers} instead of {counted(cuts[stage], 'layer')}", _with(spec, "layout", cuts=changed)


def _with(spec: RunSpec, part: str, **values: Any) -> RunSpec:
    return spec.model_copy(update={part: getattr(spec, part).model_copy(update=values)})
