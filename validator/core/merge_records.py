"""Whether what a record says of merges has the form that audits of merges rely on."""

from __future__ import annotations

from iota.objects import DeltaKey, max_bytes, part_count
from iota.protocol.events import MergeAssign
from iota.protocol.merges import LeftOut
from iota.protocol.records import EpochRecord
from iota.spec import RunSpec


def merges_fault(spec: RunSpec, record: EpochRecord) -> str | None:
    """Why the merges of a record cannot be audited, or None.

    Each stage has one merge, of all its parts or of none, and each part its contributions.
    """
    counts = [part_count(spec, stage) for stage in range(spec.layout.stages)]
    if sorted(merge.stage for merge in record.merges) != list(range(len(counts))):
        return "there is not one of each stage"
    merged = {merge.stage: len(merge.parts) for merge in record.merges}
    if any(parts not in (0, counts[stage]) for stage, parts in merged.items()):
        return "one has not all parts of its stage"
    expected = [(stage, part) for stage in range(len(counts)) for part in range(merged[stage])]
    if sorted((assign.stage, assign.part) for assign in record.merge_assigns) != expected:
        return "their parts are not those that were assigned"
    miners = {miner.hotkey: (miner.stage, miner.lives[-1].joined) for miner in record.miners}
    for assign in record.merge_assigns:
        if fault := _assign_fault(spec, record.epoch, assign, miners):
            return fault
    for accused in record.left_out:
        within = all(part < merged.get(accused.stage, 0) for part in accused.parts)
        if miners.get(accused.miner, (None, 0))[0] != accused.stage or not within:
            return f"{accused.miner} is left out of what it had no part in"
        if not accused.parts and accused.why is not LeftOut.MISSING:
            return f"{accused.miner} is left out of no part"
    return None


def _assign_fault(
    spec: RunSpec, epoch: int, assign: MergeAssign, miners: dict[str, tuple[int, int]]
) -> str | None:
    given, at = assign.contributions, f"part {assign.part} of stage {assign.stage}"
    hotkeys = [each.hotkey for each in given]
    if assign.epoch != epoch or not given or hotkeys != sorted(set(hotkeys)):
        return f"{at} has not one contribution for each of its miners"
    for each in given:
        limit = max_bytes(
            spec, DeltaKey(spec.id, epoch, assign.stage, each.hotkey, assign.part), assign.stage
        )
        if each.stored.size > limit or each.tokens == 0 or each.joined > spec.schedule.steps:
            return f"{at} has a contribution of {each.hotkey} that cannot be"
        if miners.get(each.hotkey) != (assign.stage, each.joined):
            return f"{at} has a contribution of {each.hotkey}, who is not of the stage as of its record"
    return None
