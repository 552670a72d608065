"""Keys of a run's objects: each kind has one text form (`str`), which `parse_key` reads back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iota.protocol.frames import EvidenceItem, FrameName

_RUN = r"(?P<run>[0-9a-f]{64})"
_EPOCH = r"(?P<epoch>\d{1,10})"
_STAGE = r"(?P<stage>\d{1,10})"
_HOTKEY = r"(?P<hotkey>[1-9A-HJ-NP-Za-km-z]{46,48})"
_ITEM = "|".join(EvidenceItem)
_PART = r"part-(?P<part>\d{3,6})"


@dataclass(frozen=True, slots=True)
class FrameKey:
    """A frame, sent by the replica that has the microbatch at `name.stage`."""

    run: str
    name: FrameName

    def __str__(self) -> str:
        return f"{self.run}/frames/{self.name}"


@dataclass(frozen=True, slots=True)
class DeltaKey:
    """One partition of a replica's pseudo-gradient."""

    run: str
    epoch: int
    stage: int
    hotkey: str
    part: int

    def __str__(self) -> str:
        return f"{self.run}/delta/{self.epoch}/{self.stage}/{self.hotkey}/part-{self.part:03d}"


@dataclass(frozen=True, slots=True)
class MergedKey:
    """One merged partition of a stage: the copy of the miner `hotkey`."""

    run: str
    epoch: int
    stage: int
    part: int
    hotkey: str

    def __str__(self) -> str:
        return f"{self.run}/merged/{self.epoch}/{self.stage}/part-{self.part:03d}.{self.hotkey}"


@dataclass(frozen=True, slots=True)
class BaseKey:
    """One partition of the base that `epoch` starts from: weights, and outer momentum if the run uses it.

    It is the copy of the replica `hotkey`, or without one that of who started the run from existing weights.
    """

    run: str
    epoch: int
    stage: int
    part: int
    hotkey: str = ""

    def __str__(self) -> str:
        writer = f".{self.hotkey}" if self.hotkey else ""
        return f"{self.run}/base/{self.epoch}/{self.stage}/part-{self.part:03d}{writer}.safetensors"


@dataclass(frozen=True, slots=True)
class EvidenceKey:
    """A state of a miner at one version, or its frames of one step."""

    run: str
    epoch: int
    hotkey: str
    item: EvidenceItem
    version: int

    def __str__(self) -> str:
        return f"{self.run}/audit/{self.epoch}/{self.hotkey}/{self.item}/{self.version}"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """The plan of one step (`iota.protocol.plans.WholePlan` as JSON), named by its Merkle root."""

    run: str
    epoch: int
    step: int
    root: str

    def __str__(self) -> str:
        return f"{self.run}/plan/{self.epoch}/{self.step}-{self.root}.json"


@dataclass(frozen=True, slots=True)
class SettledKey:
    """A merged partition by the orchestrator, named by its digest: it may have merged it twice."""

    run: str
    epoch: int
    stage: int
    part: int
    digest: str

    def __str__(self) -> str:
        return f"{self.run}/merged/{self.epoch}/{self.stage}/part-{self.part:03d}-{self.digest}"


RunObject = FrameKey | DeltaKey | MergedKey | BaseKey | EvidenceKey
"""What members write."""
ServerObject = PlanKey | SettledKey
"""What the orchestrator writes."""


def _frame_key(run: str, **name: Any) -> FrameKey:
    return FrameKey(run, FrameName(**name))


def _evidence_key(run: str, epoch: int, hotkey: str, item: str, version: int) -> EvidenceKey:
    return EvidenceKey(run, epoch, hotkey, EvidenceItem(item), version)


_FORMS: tuple[tuple[Callable[..., RunObject | ServerObject], re.Pattern[str]], ...] = (
    (
        _frame_key,
        re.compile(
            rf"{_RUN}/frames/{_EPOCH}/(?P<step>\d{{1,10}})/(?P<microbatch>\d{{1,10}})\.(?P<attempt>\d{{1,10}})"
            rf"/{_STAGE}\.(?P<direction>[fb])"
        ),
    ),
    (DeltaKey, re.compile(rf"{_RUN}/delta/{_EPOCH}/{_STAGE}/{_HOTKEY}/{_PART}")),
    (MergedKey, re.compile(rf"{_RUN}/merged/{_EPOCH}/{_STAGE}/{_PART}\.{_HOTKEY}")),
    (SettledKey, re.compile(rf"{_RUN}/merged/{_EPOCH}/{_STAGE}/{_PART}-(?P<digest>[0-9a-f]{{64}})")),
    (BaseKey, re.compile(rf"{_RUN}/base/{_EPOCH}/{_STAGE}/{_PART}(?:\.{_HOTKEY})?\.safetensors")),
    (
        _evidence_key,
        re.compile(rf"{_RUN}/audit/{_EPOCH}/{_HOTKEY}/(?P<item>{_ITEM})/(?P<version>\d{{1,10}})"),
    ),
    (PlanKey, re.compile(rf"{_RUN}/plan/{_EPOCH}/(?P<step>\d{{1,10}})-(?P<root>[0-9a-f]{{64}})\.json")),
)
"""The inverse of each `__str__`: what makes a key from the named groups of its pattern."""
_TEXTS = frozenset({"run", "hotkey", "direction", "root", "digest", "item"})
"""Groups that are text; all others are numbers."""


def parse_key(text: str) -> RunObject | ServerObject | None:
    """The object that a key names; None for any other text, and for numbers above the protocol's `Small`.

    There is one spelling for each object (no leading zeros): `str(parse_key(text)) == text`.
    """
    for make, form in _FORMS:
        if match := form.fullmatch(text):
            groups = match.groupdict().items()
            fields = {name: value or "" if name in _TEXTS else int(value) for name, value in groups}
            if any(isinstance(value, int) and value >= 2**31 for value in fields.values()):
                return None
            found = make(**fields)
            return found if str(found) == text else None
    return None


def manifest_folder(manifest: str) -> str:
    """Folder of a data set's files, which `iota data` writes: `manifest.json`, the tokenizer, the shards."""
    return f"data/{manifest}"


def start_key(run: str) -> str:
    """Key of the records of a run's base 0, where it starts from existing weights.

    It is outside the epochs' folders, which are deleted: a restarted orchestrator reads it again.
    """
    return f"{run}/start.json"


def tokenizer_key(manifest: str) -> str:
    """Key of the definition of a data set's tokenizer (`iota/data/exported_tokenizer.py`)."""
    return f"{manifest_folder(manifest)}/tokenizer"


def epoch_prefixes(run: str, epoch: int) -> list[str]:
    """Prefixes of what the audits of an epoch alone need: it is deleted when they are closed."""
    return [f"{run}/{kind}/{epoch}/" for kind in ("frames", "audit")]


def merge_prefixes(run: str, epoch: int, *, keeps_base: bool) -> list[str]:
    """Prefixes of an epoch's base, contributions and merge, from which the next one may begin.

    `keeps_base` says whether its base stays (`RunSpec.keeps_base`).
    """
    kinds = ["delta", "merged"]
    return [f"{run}/{kind}/{epoch}/" for kind in (kinds if keeps_base else [*kinds, "base"])]


def plans_prefix(run: str, epoch: int) -> str:
    """Prefix of an epoch's plans, which are kept as long as its record."""
    return f"{run}/plan/{epoch}/"
