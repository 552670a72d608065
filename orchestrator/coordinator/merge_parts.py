"""The parts of a merge: two drawn miners merge each, and where their copies differ the orchestrator does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from iota.protocol.events import MergeAssign, MergeReady
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.messages import Merged
from iota.protocol.receipts import Receipt
from orchestrator.coordinator import own_starts
from orchestrator.coordinator.entries import CopyRead, Finding, Remerged
from orchestrator.coordinator.epoch_state import Copy, Life, PartMerge, StageMerge
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merger_draws import MAX_MERGERS, MERGERS, next_merger, note_late
from orchestrator.coordinator.state import RunState

At = tuple[int, int]
"""(stage, part)"""


@dataclass(frozen=True)
class UnreadCopy:
    """A merger's stored copy of a part, which the orchestrator is to read before it counts."""

    epoch: int
    stage: int
    part: int
    merger: str
    stored: StoredObject

    def read(self, at: float, found: Finding) -> CopyRead:
        """The entry that says what the orchestrator found."""
        return CopyRead(
            at=at, epoch=self.epoch, stage=self.stage, part=self.part, merger=self.merger, found=found
        )


# ---- copies ------------------------------------------------------------------------------------


def take_merge_receipt(run: RunState, member: Member, receipt: Receipt) -> None:
    """Record what an assigned merger signed as its copy of a part; only its first receipt counts.

    It is a receipt of the epoch until the seal, also of a miner that took no part in the steps.
    """
    (stage, number), epoch = (receipt.stage, receipt.microbatch), run.epochs.get(receipt.epoch)
    if epoch is None or epoch.seal is not None or stage >= len(epoch.merges):
        return
    parts = epoch.merges[stage].parts
    if number >= len(parts) or member.hotkey not in parts[number].mergers:
        return
    part = parts[number]
    part.outputs.setdefault(member.hotkey, receipt.output)
    epoch.stages.setdefault(member.hotkey, member.stage)
    steps = run.spec.schedule.steps
    none = Life(steps, member.device, next_step=steps, next_commit=None, began=run.now)
    epoch.lives.setdefault(member.hotkey, [none])
    if part.agreed is None:
        run.changed.parts.add((stage, number))
    elif part.remerged is not None:
        _judge(run, member, part)
    elif part.outputs[member.hotkey] != part.agreed.output and not member.charged:
        run.contested.setdefault(member.hotkey, part)


def take_merged(run: RunState, member: Member, report: Merged) -> None:
    """Record an assigned merger's copy of a part; only its first report counts."""
    if (part := wanted_part(run, member, report)) is None:
        run.totals.unfit += 1
        return
    part.results[member.hotkey] = Copy(report.stored, report.left_out)
    run.changed.parts.add((report.stage, report.part))


def wanted_part(run: RunState, member: Member, report: Merged) -> PartMerge | None:
    """The part that is not agreed and that this member was drawn to merge, without its copy; else None."""
    fits = report.epoch == run.merging and report.stage < run.stages
    parts = run.merging_epoch().merges[report.stage].parts if fits else []
    part = parts[report.part] if report.part < len(parts) else None
    if part is None or part.agreed is not None or member.charged or member.hotkey not in part.mergers:
        return None
    given = {each.hotkey for each in part.assign.contributions}
    sizes = run.merged_sizes(report.stage, report.part, len(given))
    fits = report.stored.size in sizes and report.left_out.keys() <= given
    fits = fits and LeftOut.MISSING not in report.left_out.values()  # the orchestrator alone may say so
    return part if fits and member.hotkey not in part.results else None


def settle_parts(run: RunState, lost: Sequence[int]) -> None:
    """Accept parts with equal copies, have those with different ones merged again, replace late mergers.

    `lost` are stages whose merge has no parts, and is ready at once.
    """
    epoch, changed = run.merging_epoch(), run.changed.parts
    for stage in lost:
        _finish(run, stage, epoch.merges[stage])
    run.changed.parts = set()
    overdue = epoch.unagreed.overdue(run.now, run.deadlines.merge.seconds)
    late = (at for at in overdue if at not in epoch.disputed and at not in epoch.unread)
    for at in sorted({*changed, *late}):
        part = epoch.merges[at[0]].parts[at[1]]
        if part.agreed is None:
            _settle(run, at, part)


def _settle(run: RunState, at: At, part: PartMerge) -> None:
    """Have the part read where `MERGERS` copies agree, or the only copy where the run has one miner.

    Nobody is late while the orchestrator reads. What a merger signed without reporting it decides nothing,
    and is a dispute where it differs. So is a copy by which somebody would lose its own start.
    """
    epoch, copies = run.merging_epoch(), part.copies()
    differ = len({signed for h, signed in part.outputs.items() if not run.members[h].charged}) > 1
    if copies and not differ and (len(copies) >= MERGERS or (part.alone and len(part.mergers) == 1)):
        merger, copy = next(iter(copies.items()))
        if any(hotkey in epoch.ended and not why.is_sound for hotkey, why in copy.left_out.items()):
            epoch.unread.pop(at, None)
            epoch.disputed[at] = None
            return
        epoch.unread[at] = merger
        epoch.disputed.pop(at, None)
        return
    epoch.unread.pop(at, None)
    late = run.now > epoch.unagreed.since(at) + run.deadlines.merge.seconds
    missing = [h for h in part.mergers if h not in copies and not run.members[h].charged]
    coming = len(copies) + sum(run.members[h].live for h in missing)
    if late:
        note_late(run, missing)
    wanted, drawn = 0 if differ else max(MERGERS - coming, int(late)), 0
    while drawn < wanted and len(part.mergers) < MAX_MERGERS:
        if not next_merger(run, part, anyone=coming + drawn < MERGERS):
            break
        drawn += 1
    if differ or (late and drawn < min(wanted, 1)):
        epoch.disputed[at] = None
        return
    epoch.disputed.pop(at, None)
    if drawn < wanted:
        run.changed.unmanned.add(at)


def _agree(run: RunState, at: At, part: PartMerge, copy: Copy) -> None:
    """This copy is the merged part; what it leaves out is charged to who made it."""
    (stage, number), epoch = at, run.merging_epoch()
    merge = epoch.merges[stage]
    part.agreed = copy
    epoch.unagreed.end(at)
    epoch.unread.pop(at, None)
    epoch.disputed.pop(at, None)
    for hotkey, why in sorted(copy.left_out.items()):
        if (hotkey, why) not in merge.left_out:
            merge.left_out[hotkey, why] = []
            told = f"pseudo-gradient is left out of the merge of stage {stage}: {why.value}"
            run.incidents.named.append(f"epoch {epoch.epoch}: {hotkey}: its {told}")
            run.members[hotkey].history.happened(run.now, epoch.epoch, f"its {told}")
            if not why.is_sound and hotkey in epoch.ended:
                own_starts.void(run, epoch, hotkey)
                run.changed.parts |= {other for other in epoch.disputed if other[0] == stage}
        merge.left_out[hotkey, why].append(number)
    merge.agreed += 1
    if merge.agreed == len(merge.parts):
        _finish(run, stage, merge)


def _finish(run: RunState, stage: int, merge: StageMerge) -> None:
    """Tell the stage's replicas that its merge is ready; those that left may come back with their disk."""
    parts = tuple(p.agreed.stored for p in merge.parts if p.agreed is not None)
    epoch = run.merging_epoch()
    merge.ready = MergeReady(epoch=epoch.epoch, stage=stage, parts=parts)
    epoch.unmerged -= 1
    for member in run.roster.miners:
        if member.stage == stage and member.ready_epoch == epoch.epoch:
            run.send(member.hotkey, merge.ready)


# ---- what is stored ----------------------------------------------------------------------------


def unread_copies(run: RunState, limit: int | None) -> list[UnreadCopy]:
    """The first `limit` copies that the orchestrator is to read: one for each part whose mergers agree."""
    if run.merging is None:
        return []
    epoch = run.merging_epoch()
    return [
        UnreadCopy(run.merging, stage, part, merger, epoch.merges[stage].parts[part].results[merger].stored)
        for (stage, part), merger in islice(epoch.unread.items(), limit)
    ]


def is_unread(run: RunState, place: tuple[int, int, int], merger: str) -> bool:
    """Whether the orchestrator is to read this merger's copy of (epoch, stage, part)."""
    return run.merging == place[0] and run.merging_epoch().unread.get(place[1:]) == merger


def take_read(run: RunState, entry: CopyRead) -> None:
    """Settle a part by a copy that was read, or have it settled by other copies where that one is not sound.

    Who stored other bytes than it signed is charged. One whose copy is gone may store it again.
    """
    at = (entry.stage, entry.part)
    if not is_unread(run, (entry.epoch, *at), entry.merger):
        run.totals.unfit += 1
        return
    epoch = run.merging_epoch()
    part = epoch.merges[entry.stage].parts[entry.part]
    copy = part.results[entry.merger]
    if entry.found is Finding.SOUND:
        _agree(run, at, part, copy)
        return
    del epoch.unread[at], part.results[entry.merger]
    run.changed.parts.add(at)
    if entry.found is not Finding.ABSENT:
        _charge(run, run.members[entry.merger], part.assign, "stored other bytes of {} than it signed")


# ---- disputes ----------------------------------------------------------------------------------


def disputed_parts(run: RunState) -> list[MergeAssign]:
    """The parts that the orchestrator is to merge itself; first those that the run waits for."""
    epoch = None if run.merging is None else run.merging_epoch()
    waiting = [epoch.merges[stage].parts[part] for stage, part in epoch.disputed] if epoch else []
    return list({_place(part): part.assign for part in (*waiting, *run.contested.values())}.values())


def take_remerged(run: RunState, entry: Remerged) -> None:
    """Judge by the orchestrator's own merge what mergers signed, and settle the part where it is not agreed.

    The orchestrator's own copy is used: nobody has read those of the mergers.
    """
    at, place = (entry.stage, entry.part), (entry.epoch, entry.stage, entry.part)
    awaited = entry.epoch == run.merging and at in run.merging_epoch().disputed
    contesting = [hotkey for hotkey, part in run.contested.items() if _place(part) == place]
    if not awaited and not contesting:
        run.totals.unfit += 1
        return
    part = run.merging_epoch().merges[at[0]].parts[at[1]] if awaited else run.contested[contesting[0]]
    part.remerged = true = Copy(entry.stored, entry.left_out)
    for hotkey in contesting:
        del run.contested[hotkey]
    for hotkey in part.outputs:
        _judge(run, run.members[hotkey], part)
    if awaited:
        _agree(run, at, part, true)


def _place(part: PartMerge) -> tuple[int, int, int]:
    return part.assign.epoch, part.assign.stage, part.assign.part


def _judge(run: RunState, member: Member, part: PartMerge) -> None:
    """Charge a merger that signed another result than the orchestrator's own merge gave.

    Nobody is charged where that lacks a contribution: the store may have lost it since, and who had it then
    merged rightly.
    """
    true = part.remerged
    assert true is not None
    decides = LeftOut.MISSING not in true.left_out.values()
    if decides and part.outputs[member.hotkey] != true.output and not member.charged:
        _charge(run, member, part.assign, "merged {} wrongly")


def _charge(run: RunState, member: Member, wrong: MergeAssign, how: str) -> None:
    """A merger signed or stored a wrong part: it merges no more, and its other copies are not used.

    `how` is what it did to a part that stands for `{}`.
    """
    told = how.format(f"part {wrong.part} of stage {wrong.stage}")
    run.incidents.named.append(f"epoch {wrong.epoch} stage {wrong.stage}: {member.hotkey} {told}")
    member.history.happened(run.now, wrong.epoch, f"it {told}, and merges no more in this run")
    member.charged = True
    run.contested.pop(member.hotkey, None)
    for stage, number in member.merging if run.merging is not None else ():
        epoch = run.merging_epoch()
        part = epoch.merges[stage].parts[number]
        if part.agreed is None:
            part.results.pop(member.hotkey, None)
            epoch.unread.pop((stage, number), None)
            run.changed.parts.add((stage, number))
