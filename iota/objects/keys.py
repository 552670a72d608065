"""Keys of a run's objects: each kind prints to its one key, and is read back from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from iota.protocol.messages import FrameName

_RUN = r"(?P<run>[0-9a-f]{64})"
_EPOCH = r"(?P<epoch>\d{1,10})"
_STAGE = r"(?P<stage>\d{1,10})"
_HOTKEY = r"(?P<hotkey>[1-9A-HJ-NP-Za-km-z]{46,48})"
_PART = r"part-(?P<part>\d{3,6})"


@dataclass(frozen=True, slots=True)
class FrameKey:
    """A boundary tensor, sent by the replica that has the microbatch at `name.stage`."""

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
    """One merged partition of a stage, as the miner `hotkey` merged it."""

    run: str
    epoch: int
    stage: int
    part: int
    hotkey: str

    def __str__(self) -> str:
        return f"{self.run}/merged/{self.epoch}/{self.stage}/part-{self.part:03d}.{self.hotkey}"


@dataclass(frozen=True, slots=True)
class BaseKey:
    """One partition of the base that `epoch` starts from: weights, and momentum where the run has one."""

    run: str
    epoch: int
    stage: int
    part: int

    def __str__(self) -> str:
        return f"{self.run}/base/{self.epoch}/{self.stage}/part-{self.part:03d}.safetensors"


@dataclass(frozen=True, slots=True)
class SnapshotKey:
    """Weights and moments of a miner at one version."""

    run: str
    epoch: int
    hotkey: str
    version: int

    def __str__(self) -> str:
        return f"{self.run}/audit/{self.epoch}/{self.hotkey}/{self.version}"


RunObject = FrameKey | DeltaKey | MergedKey | BaseKey | SnapshotKey

_FRAME = re.compile(
    rf"{_RUN}/frames/{_EPOCH}/(?P<step>\d{{1,10}})/(?P<microbatch>\d{{1,10}})\.(?P<attempt>\d{{1,10}})"
    rf"/{_STAGE}\.(?P<direction>[fb])"
)
_FORMS: tuple[tuple[type[DeltaKey | MergedKey | BaseKey | SnapshotKey], re.Pattern[str]], ...] = (
    (DeltaKey, re.compile(rf"{_RUN}/delta/{_EPOCH}/{_STAGE}/{_HOTKEY}/{_PART}")),
    (MergedKey, re.compile(rf"{_RUN}/merged/{_EPOCH}/{_STAGE}/{_PART}\.{_HOTKEY}")),
    (BaseKey, re.compile(rf"{_RUN}/base/{_EPOCH}/{_STAGE}/{_PART}\.safetensors")),
    (SnapshotKey, re.compile(rf"{_RUN}/audit/{_EPOCH}/{_HOTKEY}/(?P<version>\d{{1,10}})")),
)


def parse_key(text: str) -> RunObject | None:
    """The object that a key names; None for any other text.

    A number in another spelling, with leading zeros say, is another key: `str(parse_key(text)) == text`.
    """
    found = _parse(text)
    return found if found is not None and str(found) == text else None


def manifest_folder(manifest: str) -> str:
    """Folder of the files of a data set, which `iota data` writes: `manifest.json` and each shard's."""
    return f"data/{manifest}"


def epoch_prefixes(run: str, epoch: int) -> list[str]:
    """Prefixes of all objects of an epoch, which go when its audits are closed."""
    return [f"{run}/{kind}/{epoch}/" for kind in ("frames", "delta", "merged", "audit", "base")]


def _parse(text: str) -> RunObject | None:
    if match := _FRAME.fullmatch(text):
        fields = _fields(match)
        return None if fields is None else FrameKey(fields.pop("run"), FrameName(**fields))
    for kind, form in _FORMS:
        if match := form.fullmatch(text):
            fields = _fields(match)
            return None if fields is None else kind(**fields)
    return None


def _fields(match: re.Match[str]) -> dict[str, Any] | None:
    """The named groups, digits as numbers; None where one is larger than the protocol's numbers."""
    texts = ("run", "hotkey", "direction")
    found = {name: value if name in texts else int(value) for name, value in match.groupdict().items()}
    return found if all(isinstance(v, str) or v < 2**31 for v in found.values()) else None
