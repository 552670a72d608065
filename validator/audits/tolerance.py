"""Whether a replay agrees with a receipt: bit for bit on one device class, within a tolerance across two."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iota.compute.names import Output, StepOutput
from iota.protocol.receipts import Receipt
from iota.spec import RunSpec
from validator.core.results import Profile, ReplayMismatch

_SKETCH_ROUNDING = 1e-4
"""Relative difference allowed between sketches of equal bits: the order of a float64 sum may differ."""


EXACT = Profile("exact", exact=True)


def profile_for(spec: RunSpec, mine: str, theirs: str) -> Profile:
    """The exact profile for equal device classes, else one of the run's published tolerance."""
    if mine == theirs:
        return EXACT
    error = spec.audit.tolerance
    return Profile(f"sketch/{error:g}", exact=False, error=error, cosine=1 - error)


def compare_output(profile: Profile, receipt: Receipt, replayed: Output) -> ReplayMismatch | None:
    """Compare a FORWARD, BACKWARD or LOSS receipt with its replay; None if they agree."""
    if profile.exact and receipt.output != replayed.digest:
        reason = "the output has another digest"
        return ReplayMismatch(receipt.seq, replayed.digest, receipt.output, reason)
    off = _compare_sketch(profile, receipt.seq, "output's sketch", receipt.sketch, replayed.sketch)
    if off is not None or replayed.loss is None:
        return off
    return _compare_number(profile, receipt.seq, "loss", receipt.loss, replayed.loss)


def compare_step(profile: Profile, receipt: Receipt, replayed: StepOutput) -> ReplayMismatch | None:
    """Compare a STEP receipt with its replay; None if they agree."""
    seq, state = receipt.seq, receipt.state
    if state is None:
        return ReplayMismatch(seq, replayed.weights, "", "the STEP receipt commits to no state")
    if profile.exact:
        if state.weights != replayed.weights or receipt.output != replayed.weights:
            reason = "the weights after the step are others"
            return ReplayMismatch(seq, replayed.weights, state.weights, reason)
        if state.moments != replayed.moments:
            reason = "the moments after the step are others"
            return ReplayMismatch(seq, replayed.moments, state.moments, reason)
    change = (state.change_sketch, replayed.change_sketch)
    moments = (state.moments_sketch, replayed.moments_sketch)
    return (
        _compare_sketch(profile, seq, "sketch of the weight change", *change)
        or _compare_sketch(profile, seq, "sketch of the moments", *moments)
        or _compare_number(profile, seq, "gradient norm", state.gradient_norm, replayed.gradient_norm)
    )


def sketch_distance(profile: Profile, theirs: Sequence[float], mine: Sequence[float]) -> str | None:
    """Why two sketches disagree beyond the profile; None if they agree.

    They agree if |theirs - mine| / |mine| and the cosine between them are within the profile's bounds.
    """
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


def _compare_sketch(
    profile: Profile, seq: int, what: str, theirs: Sequence[float], mine: Sequence[float]
) -> ReplayMismatch | None:
    apart = sketch_distance(profile, theirs, mine)
    if apart is None:
        return None
    return ReplayMismatch(seq, _shown(mine), _shown(theirs), f"the {what} is off: {apart}")


def _compare_number(
    profile: Profile, seq: int, what: str, theirs: float | None, mine: float
) -> ReplayMismatch | None:
    if theirs is not None and abs(theirs - mine) <= profile.error * abs(mine):
        return None
    return ReplayMismatch(seq, repr(mine), repr(theirs), f"the {what} is another")


def _shown(sketch: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in sketch)
