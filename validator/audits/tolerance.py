"""When a replay agrees with a receipt: to the bit on one device class, within a profile across two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from iota.compute.names import LossOutput, Output, StepOutput
from iota.protocol.receipts import Receipt
from iota.spec import RunSpec

_SKETCH_ROUNDING = 1e-4
"""Sketches of equal bits: only the order of a float64 sum can differ."""


@dataclass(frozen=True)
class Profile:
    """How close is equal. `error` is |a-b|/|b|; `cosine` the least allowed. Exact: digests decide."""

    name: str
    exact: bool
    error: float = 0.0
    cosine: float = 1.0


EXACT = Profile("exact", exact=True)


@dataclass(frozen=True)
class Mismatch:
    expected: str
    """What the replay gives."""
    found: str
    """What the receipt says."""
    reason: str


def profile_for(spec: RunSpec, mine: str, theirs: str) -> Profile:
    """Tolerance zero where both device classes are one; else the run's published tolerance."""
    if mine == theirs:
        return EXACT
    error = spec.audit.tolerance
    return Profile(f"sketch/{error:g}", exact=False, error=error, cosine=1 - error)


def compare_output(profile: Profile, receipt: Receipt, replayed: Output) -> Mismatch | None:
    """Hold a FORWARD, BACKWARD or LOSS receipt against its replay; None where they agree."""
    if profile.exact and receipt.output != replayed.digest:
        return Mismatch(replayed.digest, receipt.output, "the output has another digest")
    if (apart := sketch_distance(profile, receipt.sketch, replayed.sketch)) is not None:
        return Mismatch(
            _shown(replayed.sketch), _shown(receipt.sketch), f"the output's sketch is off: {apart}"
        )
    if isinstance(replayed, LossOutput):
        return _compare_number(profile, "loss", receipt.loss, replayed.loss)
    return None


def compare_step(profile: Profile, receipt: Receipt, replayed: StepOutput) -> Mismatch | None:
    """Hold a STEP receipt against its replay."""
    state = receipt.state
    if state is None:
        return Mismatch(replayed.weights, "", "the STEP receipt commits to no state")
    if profile.exact:
        if state.weights != replayed.weights or receipt.output != replayed.weights:
            return Mismatch(replayed.weights, state.weights, "the weights after the step are others")
        if state.moments != replayed.moments:
            return Mismatch(replayed.moments, state.moments, "the moments after the step are others")
    pairs = (
        ("weight change", state.change_sketch, replayed.change_sketch),
        ("moments", state.moments_sketch, replayed.moments_sketch),
    )
    for what, theirs, mine in pairs:
        if (apart := sketch_distance(profile, theirs, mine)) is not None:
            return Mismatch(_shown(mine), _shown(theirs), f"the sketch of the {what} is off: {apart}")
    return _compare_number(profile, "gradient norm", state.gradient_norm, replayed.gradient_norm)


def sketch_distance(profile: Profile, theirs: Sequence[float], mine: Sequence[float]) -> str | None:
    """Why two sketches do not agree within the profile; None where they do. `mine` is the measure."""
    if len(theirs) != len(mine) or not all(map(math.isfinite, theirs)):
        return "it is not a sketch of this run"
    if tuple(theirs) == tuple(mine):
        return None
    norm, other = math.hypot(*mine), math.hypot(*theirs)
    if norm == 0 or other == 0:
        return f"norms {other:g} and {norm:g}"
    error = math.dist(theirs, mine) / norm
    cosine = sum(a * b for a, b in zip(theirs, mine, strict=True)) / (norm * other)
    allowed = max(profile.error, _SKETCH_ROUNDING)
    if error <= allowed and cosine >= min(profile.cosine, 1 - _SKETCH_ROUNDING):
        return None
    return f"relative error {error:.3g}, cosine {cosine:.6f}"


def _compare_number(profile: Profile, what: str, theirs: float | None, mine: float) -> Mismatch | None:
    if theirs is not None and abs(theirs - mine) <= profile.error * abs(mine):
        return None
    return Mismatch(repr(mine), repr(theirs), f"the {what} is another")


def _shown(sketch: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in sketch)
