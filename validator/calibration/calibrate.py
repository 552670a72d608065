"""A whole calibration: measures, fits, writes the profiles and their plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iota.console.command import Stopped, WorkFailed
from iota.files import whole_file
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from validator.audits.measured import MeasuredProfile
from validator.calibration.fitting import MIN_SAMPLES, Pooled, pooled, profile_of
from validator.calibration.measuring import Say, measure, samples_in
from validator.calibration.plan import Plan, name_of
from validator.calibration.samples import PairSamples
from validator.calibration.variants import Variant
from validator.core.results import Bounds, Quantity

PROFILES: Final = "profiles"
"""The folder of the profiles in that of a calibration: what `--profiles` takes."""


@dataclass(frozen=True)
class Fitted:
    """A profile that was written, and what it was made from."""

    spec: RunSpec
    profile: MeasuredProfile
    samples: Pooled
    path: Path


def calibrate(plan: Plan, variants: Sequence[Variant], folder: Path, say: Say) -> list[Fitted]:
    """Measure what is missing in `folder`, and write the profiles of all that is there.

    Raises Stopped at Ctrl-C: what is measured stays, and the profiles are of that; WorkFailed where there is
    nothing to fit.
    """
    stopped = False
    try:
        measure(plan, variants, folder, say)
    except KeyboardInterrupt:
        stopped = True
    fitted = [each for spec in plan.specs for each in _fitted(spec, folder)]
    if stopped:
        raise Stopped(
            f"stopped: {folder} keeps what was measured, and its profiles; the same command goes on"
        )
    if not fitted:
        raise WorkFailed(_too_little(plan, folder))
    return fitted


def lie_of(bounds: Bounds, kind: OpKind) -> float:
    """The largest lie of an op kind that bounds let pass: a share of what is told.

    It is noise of so many times the output's norm, spread over all tokens (FORWARD, BACKWARD, LOSS), of the
    norm (STEP), of the weights' change (COMMIT).
    """
    if kind is OpKind.STEP:
        return bounds.of(kind, Quantity.NORM)
    if kind is OpKind.COMMIT:
        return min(bounds.of(kind, Quantity.CHANGE), bounds.of(kind, Quantity.CHANGE_TENSOR))
    cosine = math.sqrt(2 * bounds.of(kind, Quantity.COSINE))
    return min(bounds.of(kind, Quantity.ERROR), bounds.of(kind, Quantity.TOKEN), cosine)


def _too_little(plan: Plan, folder: Path) -> str:
    """Why there is no profile, and how many segments would make one."""
    found = [samples for spec in plan.specs for samples in pooled(_pairs(folder, spec))]
    most = max((len(values) for each in found for values in each.distances.values()), default=0)
    if not most:
        return "all replays are of one device class, so there is nothing to compare: give more --threads"
    needed = math.ceil(plan.segments * MIN_SAMPLES / most)
    return (
        f"a profile needs {MIN_SAMPLES} distances of one quantity, and there are {most} at most: give"
        f" --segments {needed}, or more --threads; what was measured is kept"
    )


def _pairs(folder: Path, spec: RunSpec) -> Iterator[PairSamples]:
    return (pair for each in samples_in(folder, spec) for pair in each.pairs)


def _fitted(spec: RunSpec, folder: Path) -> list[Fitted]:
    found = []
    for samples in pooled(_pairs(folder, spec)):
        profile = profile_of(spec, samples)
        if profile is None:
            continue
        path = folder / PROFILES / f"{name_of(spec)}-{_pair_name(samples.classes)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_text(profile.model_dump_json(indent=1) + "\n")
        found.append(Fitted(spec, profile, samples, path))
    return found


def _pair_name(classes: tuple[str, str]) -> str:
    """`avx2-avx512` of two CPU classes; of a GPU its name."""
    places = {"cpu": 2, "cuda": 1, "mps": 1}
    parts = (name.split("/") for name in classes)
    return "-".join(part[places.get(part[0], 0)].lower().replace(" ", "_") for part in parts)
