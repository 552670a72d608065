"""Distances between honest replays of one segment, two by two."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

from pydantic import Field

from iota.codec.shapes import payload_shape
from iota.compute.state import StageState
from iota.protocol.receipts import OpKind
from iota.spec import Count, Frozen, RunSpec
from validator.audits.distances import number_error
from validator.audits.state_distances import state_distances
from validator.audits.tolerance import payload_distances
from validator.calibration.honest import Honest
from validator.calibration.replay_files import read_replay, read_state
from validator.core.results import PayloadForm, Quantity

_Key = tuple[OpKind, Quantity, int]
"""What was compared, and the depth: the least measured number of steps that the op's step is within."""


class Distances(Frozen):
    """Of one quantity of an op kind at a depth."""

    kind: OpKind
    quantity: Quantity
    depth: Count
    values: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]


class PairSamples(Frozen):
    """Of two replays."""

    classes: tuple[str, str]
    """Their device classes, sorted."""
    distances: tuple[Distances, ...]


class SegmentSamples(Frozen):
    """Of all pairs of replays of one segment: the content of a file of samples."""

    pairs: tuple[PairSamples, ...]


def compare_all(
    spec: RunSpec, starts: Sequence[StageState], depths: Sequence[int], folders: Sequence[Path]
) -> SegmentSamples:
    """Compare each two replays of a segment that started from `starts`. `depths` ascend.

    Raises ValueError where honest replays are infinitely far from one another: a fault of this program.
    """
    replays = {folder: read_replay(folder) for folder in folders}
    found = []
    for one, other in combinations(folders, 2):
        theirs, mine = replays[one], replays[other]
        kept = _outputs(spec, depths, theirs, mine)
        for depth in depths:
            for stage, start in enumerate(starts):
                states = (read_state(folder, depth, stage, spec) for folder in (one, other))
                for quantity, worst in state_distances(start, *states).items():
                    kept[OpKind.COMMIT, quantity, depth].append(worst.distance)
        first, second = sorted((theirs.device, mine.device))
        found.append(PairSamples(classes=(first, second), distances=_listed(kept)))
    return SegmentSamples(pairs=tuple(found))


def _outputs(
    spec: RunSpec, depths: Sequence[int], theirs: Honest, mine: Honest
) -> defaultdict[_Key, list[float]]:
    kept: defaultdict[_Key, list[float]] = defaultdict(list)
    form = PayloadForm(spec.boundary.wire, payload_shape(spec))
    for name, payload in mine.payloads.items():
        step, kind = name[0], name[3]
        for quantity, worst in payload_distances(form, theirs.payloads[name], payload):
            kept[kind, quantity, _depth(depths, step)].append(worst.distance)
    for name, number in mine.numbers.items():
        step, kind = name[0], name[3]
        quantity = Quantity.NORM if kind is OpKind.STEP else Quantity.LOSS
        kept[kind, quantity, _depth(depths, step)].append(number_error(theirs.numbers[name], number))
    return kept


def _depth(depths: Sequence[int], step: int) -> int:
    return depths[bisect_left(depths, step + 1)]


def _listed(kept: Mapping[_Key, list[float]]) -> tuple[Distances, ...]:
    return tuple(
        Distances(kind=kind, quantity=quantity, depth=depth, values=tuple(values))
        for (kind, quantity, depth), values in sorted(kept.items())
    )
