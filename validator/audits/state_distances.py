"""How far the state that a miner committed to is from a replay of its segment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from torch import Tensor

from iota.compute.moments import decoded_moment, is_scale, scale_of
from iota.compute.state import StageState
from validator.audits.distances import NOT_COMPARABLE, Sums, Worst, sums, worst_along, worst_error
from validator.core.results import Quantity

_COUNTS: Final = "step"
"""The moments of this kind are step counts: they are equal or infinitely far."""
_DIRECTIONS: Final = ("momentum_buffer", "exp_avg")
"""The moments from which Muon and AdamW make the change."""


def state_distances(start: StageState, theirs: StageState, mine: StageState) -> dict[Quantity, Worst]:
    """Distances of the states at a segment's end, which both reached from `start`. All are on the CPU.

    Moments are compared kind by kind (Muon's momentum, AdamW's first and second moments), by the values that
    they stand for: codes and scales alone say nothing. The weights of the version before are compared as the
    weights are.
    """
    moments = _moment_sums(theirs.moments, mine.moments)
    counts = moments.pop(_COUNTS, {})
    if any(part.difference != 0 for part in counts.values()):
        moments[_COUNTS] = dict.fromkeys(counts, NOT_COMPARABLE)
    pairs = {"weights": (theirs.weights, mine.weights), "weights before": (theirs.before, mine.before)}
    changes = {what: _change_sums(start.weights, *pair, mine.moments) for what, pair in pairs.items()}
    return {
        Quantity.MOMENTS: _farthest(Worst(_total(own).error, kind) for kind, own in moments.items()),
        Quantity.MOMENTS_TENSOR: _farthest(worst_error(own) for own in moments.values()),
        Quantity.ALONG: _farthest(_placed(what, worst_along(own)) for what, own in changes.items()),
        Quantity.CHANGE: _farthest(Worst(_change_error(own), what) for what, own in changes.items()),
        Quantity.CHANGE_TENSOR: _farthest(_placed(what, worst_error(own)) for what, own in changes.items()),
    }


def _moment_sums(theirs: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> dict[str, dict[str, Sums]]:
    """Kind of moments -> name -> sums. A tensor that one side lacks is not comparable."""
    found: dict[str, dict[str, Sums]] = {}
    for name in sorted({*theirs, *mine}):
        if not is_scale(name):
            kind = name.partition(".")[0]
            found.setdefault(kind, {})[name] = _sums_of(_values(theirs, name), _values(mine, name))
    return found


def _values(moments: Mapping[str, Tensor], name: str) -> Tensor | None:
    """What kept moments stand for; None where they are missing, or their scales."""
    if name not in moments or scale_of(name, moments[name]) not in (None, *moments):
        return None
    return decoded_moment(moments, name)


def _change_sums(
    start: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    mine: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
) -> dict[str, Sums]:
    """Name of a weight -> sums of its changes since the start, and along its momentum."""
    return {
        name: _sums_of(theirs.get(name), mine.get(name), start.get(name), _direction(moments, name))
        for name in sorted({*theirs, *mine})
    }


def _sums_of(
    theirs: Tensor | None,
    mine: Tensor | None,
    start: Tensor | None = None,
    direction: Tensor | None = None,
) -> Sums:
    if theirs is None or mine is None:
        return NOT_COMPARABLE
    return sums(theirs, mine, start, direction)


def _direction(moments: Mapping[str, Tensor], name: str) -> Tensor | None:
    found = (_values(moments, f"{kind}.{name}") for kind in _DIRECTIONS)
    return next((tensor for tensor in found if tensor is not None), None)


def _total(parts: Mapping[str, Sums]) -> Sums:
    total = Sums()
    for part in parts.values():
        total += part
    return total


def _change_error(parts: Mapping[str, Sums]) -> float:
    """Of all tensors together. Their roundings are those of the tensor with the largest steps."""
    return _total(parts).error_by(max((part.least for part in parts.values()), default=0.0))


def _placed(what: str, worst: Worst) -> Worst:
    return Worst(worst.distance, f"{what}, {worst.place}")


def _farthest(found: Iterable[Worst]) -> Worst:
    return max(found, key=lambda worst: worst.distance, default=Worst(0.0))
