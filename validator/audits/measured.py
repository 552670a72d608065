"""Measured tolerance profiles: their files, and which pair of device classes and which runs they hold for.

`iota-validator calibrate` writes them. A profile holds for what it was measured on, or less: a pair of
classes, up to so many threads, the run's number formats, optimizer and codec, a model and microbatch of at
most that size, and segments of at most that depth. The threads of a class need not be equal: they change only
the order of sums, and a profile is made from pairs with different ones.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from iota.protocol.receipts import OpKind
from iota.spec import Frozen, GradientSums, Moments, OptimizerKind, Positive, Precision, RunSpec, WireDtype
from validator.audits.declared import COMPARED, declared_bounds, least_bound
from validator.core.results import Bounds, Quantity

PROFILE_FORM: Final = 3
"""Version of the form of a profile's file."""
MAX_FILE_BYTES: Final = 1 << 20
MAX_FILES: Final = 256
"""Profiles of one folder."""
MAX_DEPTH: Final = 1000
"""Steps of the longest segment that is measured."""
_THREADS: Final = re.compile(r"/t(\d{1,4})/")
"""The thread count in a CPU's device class."""
_ANY_THREADS: Final = "/t*/"
_Class = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[ -~]+$")]
_Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MeasuredBound(Frozen):
    """What was measured of one quantity of one op kind, and the bound that follows."""

    model_config = ConfigDict(strict=True)

    kind: OpKind
    quantity: Quantity
    depth: Annotated[int, Field(ge=1, le=MAX_DEPTH)]
    """Steps from the segment's start to the end of the op's step: it holds up to there."""
    samples: Positive
    """Honest comparisons of this depth."""
    quantiles: tuple[_Distance, _Distance, _Distance, _Distance]
    """Of the distances: median, 90 %, 99 %, largest."""
    tail: _Distance
    """Shape of the fitted tail (`validator.calibration.tail`)."""
    bound: _Distance
    """The largest distance that passes. It is not below that of a lesser depth."""


class MeasuredProfile(Frozen):
    """Honest distances between two device classes, and for what they hold."""

    model_config = ConfigDict(strict=True)

    form: Literal[3] = PROFILE_FORM
    classes: tuple[_Class, _Class]
    """Sorted; without thread counts (`family`). A class names hardware, kernels and torch's version."""
    threads: Positive
    """Most threads that were measured."""
    precision: Precision
    optimizer: OptimizerKind
    moments: Moments
    gradient_sums: GradientSums
    wire: WireDtype
    codec: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    hidden_size: Positive
    layers: Positive
    """Of the largest stage."""
    tokens: Positive
    """In a microbatch."""
    false_rejects: Annotated[float, Field(gt=0, lt=1)]
    """Chance that an honest comparison is beyond its bound, by the fitted tail."""
    margin: Annotated[float, Field(ge=1, le=100)]
    """Factor on the fitted quantile that is in the bounds."""
    measured: tuple[MeasuredBound, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.classes) != sorted(self.classes) or any(_THREADS.search(c) for c in self.classes):
            raise ValueError('"classes" are sorted, and have /t*/ for the number of threads')
        largest: dict[tuple[OpKind, Quantity], MeasuredBound] = {}
        for each in self.measured:
            if each.quantity not in COMPARED.get(each.kind, ()):
                raise ValueError(f"{each.quantity} of a {each.kind} is not compared")
            before = largest.get((each.kind, each.quantity))
            if before is not None and not (before.depth < each.depth and before.bound <= each.bound):
                raise ValueError(f"{each.quantity} of a {each.kind}: depths ascend, and bounds with them")
            largest[each.kind, each.quantity] = each
        return self

    @property
    def depth(self) -> int:
        """Steps of the longest segment that it holds for."""
        return max(each.depth for each in self.measured)

    def name(self, steps: int) -> str:
        """What a verdict calls it for segments of so many steps: what it is for, and its content's digest."""
        kind = formats(self.precision, self.optimizer, self.moments, self.gradient_sums, self.wire)
        return f"measured/{kind}/{steps} steps/{self.content_digest()[:16]}"

    def bounds(self, depth: int) -> Bounds:
        """The bound of each quantity that was measured, at a depth."""
        found: dict[tuple[OpKind, Quantity], float] = {}
        for each in reversed(self.measured):
            # Those of lesser depths come later, and the least depth that suffices counts.
            if each.depth >= depth:
                found[each.kind, each.quantity] = each.bound
        return Bounds(found)


def formats(
    precision: Precision,
    optimizer: OptimizerKind,
    moments: Moments,
    gradient_sums: GradientSums,
    *others: WireDtype,
) -> str:
    """What a run computes with, in few words: moments and sums of gradients only where they are not fp32."""
    named = [precision.value, optimizer.value]
    if moments is not Moments.FP32:
        named.append(f"{moments}-moments")
    if gradient_sums is not GradientSums.FP32:
        named.append(f"{gradient_sums}-sums")
    return "/".join([*named, *others])


def family(device_class: str) -> str:
    """A device class with any number of threads."""
    return _THREADS.sub(_ANY_THREADS, device_class)


def threads_of(device_class: str) -> int:
    """The number of threads that a device class names; 1 where it names none, as that of a GPU."""
    match = _THREADS.search(device_class)
    return int(match[1]) if match else 1


def segment_steps(spec: RunSpec) -> int:
    """Most steps of a segment of a run."""
    return min(spec.audit.commit_every, spec.schedule.steps)


def covers(profile: MeasuredProfile, spec: RunSpec, mine: str, theirs: str) -> bool:
    """Whether a profile was measured for two device classes, and for what a run computes."""
    same = (
        profile.classes == tuple(sorted((family(mine), family(theirs))))
        and profile.precision is spec.precision
        and profile.optimizer is spec.optimizer.kind
        and profile.moments is spec.optimizer.moments
        and profile.gradient_sums is spec.optimizer.gradient_sums
        and profile.wire is spec.boundary.wire
        and profile.codec == spec.boundary.codec
    )
    return (
        same
        and max(threads_of(mine), threads_of(theirs)) <= profile.threads
        and spec.model.hidden_size <= profile.hidden_size
        and max(spec.layout.cuts) <= profile.layers
        and spec.data.tokens <= profile.tokens
        and segment_steps(spec) <= profile.depth
    )


def effective_bounds(spec: RunSpec, profile: MeasuredProfile, depth: int) -> Bounds:
    """The bounds that count at a depth: the measured ones, and at most the declared.

    None is below what the wire's rounding makes in a microbatch of the run, which may have fewer tokens than
    what was measured.
    """
    own = profile.bounds(depth).values
    declared = declared_bounds(spec, depth).values
    return Bounds(
        {
            key: min(bound, max(own.get(key, bound), least_bound(spec, key[1])))
            for key, bound in declared.items()
        }
    )


def read_profiles(folder: Path) -> tuple[MeasuredProfile, ...]:
    """The profiles of a folder's *.json files, in the order of their names.

    Raises ValueError for a folder that is none, and for a file that is no profile; both say what to do.
    """
    if not folder.is_dir():
        raise ValueError(f"--profiles {folder} is no folder: give one that `iota-validator calibrate` wrote")
    paths = sorted(folder.glob("*.json"))
    if len(paths) > MAX_FILES:
        raise ValueError(f"{folder} has {len(paths)} profiles, and {MAX_FILES} are read: take some away")
    return tuple(read_profile(path) for path in paths)


def read_profile(path: Path) -> MeasuredProfile:
    """One profile. Raises ValueError that names the file."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes, and is no profile: take it away")
    return _parsed(data, str(path))


@cache
def shipped_profiles() -> tuple[MeasuredProfile, ...]:
    """The profiles that this build ships, in the order of their files' names."""
    folder = resources.files("validator.audits") / "profiles"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    return tuple(_parsed(file.read_bytes(), file.name) for file in files)


def _parsed(data: bytes, name: str) -> MeasuredProfile:
    try:
        return MeasuredProfile.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(f"{name} is no tolerance profile: measure it anew. {error}") from error
