"""Tolerance profiles from samples: one for each pair of device classes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from validator.audits.declared import COMPARED, least_bound
from validator.audits.measured import MeasuredBound, MeasuredProfile, family, threads_of
from validator.calibration.samples import PairSamples
from validator.calibration.tail import fit_tail, quantiles
from validator.core.results import Quantity

FALSE_REJECTS: Final = 1e-6
"""Chance that an honest comparison is beyond its bound, by the fitted tail."""
MARGIN: Final = 4.0
"""Factor on the distance that has that chance: trained models, other data and CPUs were not measured."""
MIN_SAMPLES: Final = 100
"""Fewer distances show no tail: the quantity has its declared bound."""

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


def profile_of(spec: RunSpec, samples: Pooled) -> MeasuredProfile | None:
    """The profile of a pair of classes, for a run as `spec`; None where no quantity has `MIN_SAMPLES`."""
    measured = [
        bound
        for kind, quantities in COMPARED.items()
        for quantity in quantities
        for bound in _bounds(spec, kind, quantity, samples.distances)
    ]
    if not measured:
        return None
    return MeasuredProfile(
        classes=samples.classes,
        threads=samples.threads,
        precision=spec.precision,
        optimizer=spec.optimizer.kind,
        moments=spec.optimizer.moments,
        gradient_sums=spec.optimizer.gradient_sums,
        wire=spec.boundary.wire,
        codec=spec.boundary.codec,
        hidden_size=spec.model.hidden_size,
        layers=max(spec.layout.cuts),
        tokens=spec.data.tokens,
        false_rejects=FALSE_REJECTS,
        margin=MARGIN,
        measured=tuple(measured),
    )


def within(distances: Mapping[_Key, Sequence[float]], key: _Key) -> list[float]:
    """The distances of a quantity at a depth and at all lesser ones."""
    kind, quantity, depth = key
    return [
        value
        for (of, what, at), values in sorted(distances.items())
        if of is kind and what is quantity and at <= depth
        for value in values
    ]


def _bounds(
    spec: RunSpec, kind: OpKind, quantity: Quantity, distances: Mapping[_Key, Sequence[float]]
) -> list[MeasuredBound]:
    """The bounds of one quantity by depth, ascending. None is above that of a greater depth."""
    depths = sorted({at for of, what, at in distances if of is kind and what is quantity})
    found: list[MeasuredBound] = []
    for depth in reversed(depths):
        values = within(distances, (kind, quantity, depth))
        if len(values) < MIN_SAMPLES:
            break
        tail = fit_tail(values)
        fitted = max(least_bound(spec, quantity), MARGIN * max(tail.beyond(FALSE_REJECTS), *values))
        bound = MeasuredBound(
            kind=kind,
            quantity=quantity,
            depth=depth,
            samples=len(values),
            quantiles=quantiles(values),
            tail=tail.shape,
            bound=min(float(f"{fitted:.3g}"), found[-1].bound if found else math.inf),
        )
        found.append(bound)
    return found[::-1]
