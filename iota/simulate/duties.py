"""The reports with which a simulated miner's duties end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from iota.objects import (
    BaseKey,
    DeltaKey,
    EvidenceKey,
    MergedKey,
    RunObject,
    delta_part_bytes,
    frames_bytes,
    merged_part_sizes,
    part_sizes,
    planned_frames,
    snapshot_bytes,
    stage_feedback_bytes,
)
from iota.protocol.events import MergeAssign
from iota.protocol.frames import EvidenceItem, StoredObject
from iota.protocol.messages import (
    BaseStored,
    Delta,
    EvidenceStored,
    Merged,
    Report,
)
from iota.simulate.names import digest
from iota.spec import RunSpec
from miner.core.effects import Duty, MergePart, StoreBase, StoreDelta, StoreEvidence


def report_of(duty: Duty, spec: RunSpec, stage: int, hotkey: str, bases: Mapping[int, str]) -> Report | None:
    """The report of a finished duty; None for a base that is not on disk. `bases` are digests by epoch."""
    epoch, sizes = _epoch(duty), [4 * elements for elements in part_sizes(spec, stage)]
    match duty:
        case StoreDelta():
            deltas = enumerate(delta_part_bytes(spec, stage))
            parts = (_stored(DeltaKey(spec.id, epoch, stage, hotkey, n), s) for n, s in deltas)
            return Delta(epoch=epoch, parts=tuple(parts))
        case MergePart(assign):
            key = MergedKey(spec.id, epoch, assign.stage, assign.part, hotkey)
            stored = merged_part(spec, assign, str(key))
            return Merged(epoch=epoch, stage=assign.stage, part=assign.part, stored=stored)
        case StoreBase():
            if epoch not in bases:
                return None
            parts = (_stored(BaseKey(spec.id, epoch, stage, n, hotkey), 2 * s) for n, s in enumerate(sizes))
            return BaseStored(epoch=epoch, digest=bases[epoch], parts=tuple(parts))
        case StoreEvidence(epoch, item, version):
            size = {
                EvidenceItem.SNAPSHOT: snapshot_bytes(spec, stage),
                EvidenceItem.FRAMES: frames_bytes(spec, planned_frames(spec)),
                EvidenceItem.FEEDBACK: stage_feedback_bytes(spec, stage),
            }[item]
            stored = _stored(EvidenceKey(spec.id, epoch, hotkey, item, version), size)
            return EvidenceStored(epoch=epoch, item=item, version=version, stored=stored)
        case _:
            assert_never(duty)


def merged_part(spec: RunSpec, assign: MergeAssign, key: str) -> StoredObject:
    """The merge of a part under a key. Whoever merges the same contributions gets the same digest."""
    sizes = merged_part_sizes(spec, assign.stage, assign.part, len(assign.contributions))
    content = digest("merged", assign.epoch, assign.stage, assign.part, assign.contributions)
    return StoredObject(key=key, digest=content, size=sizes[-1])


def _epoch(duty: Duty) -> int:
    return duty.assign.epoch if isinstance(duty, MergePart) else duty.epoch


def _stored(key: RunObject, size: int) -> StoredObject:
    return StoredObject(key=str(key), digest=digest(str(key)), size=size)
