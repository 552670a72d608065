"""The objects that an exchange announces as stored, and what is left of it without those that are not."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain

from iota.objects import FrameKey
from iota.protocol.frames import FrameNotice
from iota.protocol.messages import (
    BaseStored,
    Delta,
    EvidenceStored,
    Merged,
    Report,
)
from iota.spec import RunSpec
from orchestrator.coordinator import Exchanged


def announced(spec: RunSpec, said: FrameNotice | Report) -> dict[str, int]:
    """Key and size (bytes) of each object that a notice or report says is stored."""
    match said:
        case FrameNotice() if said.kept is not None:
            return {}  # it lies with its receiver, whose signature the intake verifies
        case FrameNotice():
            return {str(FrameKey(spec.id, said.name)): said.size}
        case Delta() | BaseStored():
            return {part.key: part.size for part in said.parts}
        case Merged() | EvidenceStored():
            return {said.stored.key: said.stored.size}
        case _:
            return {}


def all_announced(spec: RunSpec, said: Exchanged) -> dict[str, int]:
    """Those of all notices and reports of an entry."""
    found: dict[str, int] = {}
    for each in chain(said.frames, said.reports):
        found |= announced(spec, each)
    return found


def without(spec: RunSpec, said: Exchanged, absent: Collection[str]) -> tuple[Exchanged | None, list[str]]:
    """The entry without the notices and reports that name absent objects; and one key of each of these.

    The entry is None if nothing is left of it.
    """
    missing: list[str] = []

    def stays(each: FrameNotice | Report) -> bool:
        key = next((key for key in announced(spec, each) if key in absent), None)
        if key is not None:
            missing.append(key)
        return key is None

    if not absent:
        return said, missing
    frames = tuple(each for each in said.frames if stays(each))
    reports = tuple(each for each in said.reports if stays(each))
    left = said.model_copy(update={"frames": frames, "reports": reports})
    return left if left.receipts or frames or reports else None, missing
