"""Tolerance profiles from samples: one for each pair of device classes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from iota.protocol.receipts import OpKind
from iota.spec import RunSpec, WireDtype
from validator.audits.declared import COMPARED
from validator.audits.measured import MeasuredBound, MeasuredProfile, family, threads_of
from validator.calibration.samples import PairSamples
from validator.calibration.tail import fit_tail, quantiles
from validator.core.results import Quantity

FALSE_REJECTS: Final = 1e-6
"""Chance that an honest comparison is beyond its bound, by the fitted tail."""
MARGIN: Final = 2.0
"""Factor on the distance that has that chance: other models, data and CPUs were not measured."""
_ROUNDINGS: Final = {WireDtype.FP32: 1e-5, WireDtype.BF16: 2**-8, WireDtype.INT8: 1 / 127}
"""Relative error of a value that the wire rounds the other way (fp32: some roundings of the compute)."""
_LEAST: Final = 1e-5
"""Least bound of a number or a state: some roundings of fp32."""

_Key = tuple[OpKind, Quantity, int]


@dataclass(frozen=True)
class Pooled:
    """The samples of a pair of classes, with any number of threads."""

    classes: tuple[str, str]
    threads: int
    distances: Mapping[_Key, Sequence[float]]


def pooled(pairs: Iterable[PairSamples]) -> list[Pooled]:
    """Samples by pair of classes. Equal device classes, which are compared to the bit, are left out."""
    found: dict[tuple[str, str], defaultdict[_Key, list[float]]] = {}
    threads: dict[tuple[str, str], int] = {}
    for pair in pairs:
        one, other = sorted(map(family, pair.classes))
        if pair.classes[0] == pair.classes[1]:
            continue
        kept = found.setdefault((one, other), defaultdict(list))
        most = max(map(threads_of, pair.classes))
        threads[one, other] = max(threads.get((one, other), 1), most)
        for each in pair.distances:
            kept[each.kind, each.quantity, each.depth] += each.values
    return [Pooled(classes, threads[classes], kept) for classes, kept in sorted(found.items())]


def profile_of(spec: RunSpec, samples: Pooled) -> MeasuredProfile:
    """The profile of a pair of classes, for a run as `spec`."""
    ordered = sorted(samples.distances.items(), key=lambda item: _order(item[0]))
    return MeasuredProfile(
        classes=samples.classes,
        threads=samples.threads,
        compute=spec.compute,
        optimizer=spec.optimizer.kind,
        wire=spec.boundary.wire,
        codec=spec.boundary.codec,
        hidden_size=spec.model.hidden_size,
        layers=max(spec.layout.cuts),
        tokens=spec.data.tokens,
        false_rejects=FALSE_REJECTS,
        margin=MARGIN,
        measured=tuple(
            bound
            for _, group in groupby(ordered, key=lambda item: item[0][:2])
            for bound in _ascending(spec, group)
        ),
    )


def least_bound(spec: RunSpec, quantity: Quantity) -> float:
    """The bound where all distances were smaller: what one value that is rounded the other way makes."""
    rounding = _ROUNDINGS[spec.boundary.wire]
    match quantity:
        case Quantity.TOKEN:
            return rounding
        case Quantity.ERROR:
            return rounding / math.sqrt(spec.data.tokens)
        case Quantity.COSINE:
            return rounding**2 / spec.data.tokens / 2
        case _:
            return _LEAST


def _ascending(spec: RunSpec, group: Iterable[tuple[_Key, Sequence[float]]]) -> Iterable[MeasuredBound]:
    """The bounds of one quantity by depth: none is below that of a lesser depth."""
    least = 0.0
    for (kind, quantity, depth), values in group:
        tail = fit_tail(values)
        fitted = MARGIN * max(tail.beyond(FALSE_REJECTS), *values)
        least = max(least, least_bound(spec, quantity), fitted)
        yield MeasuredBound(
            kind=kind,
            quantity=quantity,
            depth=depth,
            samples=len(values),
            quantiles=quantiles(values),
            tail=tail.index,
            bound=float(f"{least:.3g}"),
        )


def _order(key: _Key) -> tuple[int, int, int]:
    kind, quantity, depth = key
    return list(COMPARED).index(kind), COMPARED[kind].index(quantity), depth
