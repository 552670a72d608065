"""The draw of mergers: two for each part, whom nobody could foresee, and others in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blake3 import blake3

from iota.protocol.events import Contribution, MergeAssign
from orchestrator.coordinator.epoch_state import PartMerge, StageMerge
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.patience import SLOW_EPOCHS
from orchestrator.coordinator.state import RunState

MERGERS = 2
"""Equal copies that decide a part: a single merger, or one owner's two, could write anything into it."""
MAX_MERGERS = 4
"""Miners that are drawn for a part. If no two copies have come of them, the orchestrator merges it."""
_TRIES = 64
"""Draws among all miners before one among those that fit: enough while one in ten does."""


def draw_block(run: RunState) -> int:
    """The first block by which the mergers of the epoch whose merge is under way may be drawn.

    It comes after the last step has closed, so that nobody who reports late chooses the draw. The next block
    may be out already where the orchestrator has not seen it, so it is as many blocks later as for the seal.
    """
    return run.merging_epoch().merging_block + run.spec.audit.seal_blocks


def assign_parts(run: RunState) -> None:
    """Draw the mergers of stages whose contributions are fixed, once there is a block to draw them by."""
    epoch = run.merging_epoch()
    if epoch.merge_seed is None and run.head.block >= draw_block(run):
        epoch.merge_seed = run.head.hash
    elif epoch.merge_seed is None and run.now > epoch.merging_since + run.limits.max_s:
        epoch.merge_seed = run.head.hash
        told = f"epoch {epoch.epoch}: no new block came, so mergers are drawn by block {run.head.block}"
        run.incidents.named.append(told)
    if epoch.merge_seed is None:
        return
    if epoch.unassigned and not epoch.workers:
        for member in run.roster.miners:
            if member.worked >= max(0, epoch.epoch - 1):
                epoch.workers.append(member)
            elif member.joined is not None and run.able(member):
                epoch.unworked.append(member)
    for stage in sorted(epoch.unassigned):
        _assign_stage(run, stage, epoch.merges[stage], epoch.merge_seed)
    epoch.unassigned.clear()


def _assign_stage(run: RunState, stage: int, merge: StageMerge, block_hash: str) -> None:
    """Assign each part of a stage's merge to `MERGERS` miners, as far as so many are there."""
    epoch = run.merging_epoch()
    given = [
        (h, run.spec.data.tokens * epoch.counted[h], epoch.lives[h][-1].joined) for h in sorted(merge.deltas)
    ]
    for part in range(len(run.part_bytes[stage])):
        assign = MergeAssign(
            epoch=epoch.epoch,
            stage=stage,
            part=part,
            contributions=tuple(
                Contribution(hotkey=h, tokens=tokens, joined=joined, stored=merge.deltas[h][part])
                for h, tokens, joined in given
            ),
        )
        state = PartMerge(assign, f"{block_hash}/{run.spec.id}/{epoch.epoch}/{stage}/{part}/")
        merge.parts.append(state)
        epoch.unagreed.begin((stage, part), run.now)
        if not all(next_merger(run, state, anyone=True) for _ in range(MERGERS)):
            run.changed.unmanned.add((stage, part))


def next_merger(run: RunState, part: PartMerge, *, anyone: bool) -> bool:
    """Assign the part to one more miner; False when none is left.

    It is one that has worked, if it can be: who only joined would hold up every merge, and loses nothing by
    it. Another owner's comes first, and who was late with a part last. `anyone`: it may be one without work,
    where it takes part in the epoch and is another owner's, or where nobody else is left.
    """
    epoch, owners = run.merging_epoch(), {run.members[hotkey].owner for hotkey in part.mergers}

    def fits(member: Member) -> bool:
        return member.live and not member.charged and member.hotkey not in part.mergers

    def is_timely(member: Member) -> bool:
        slow = run.slow_mergers.get(member.owner, -1) >= epoch.epoch
        return fits(member) and not slow and member.hotkey not in epoch.late_mergers

    def is_anothers(member: Member) -> bool:
        return is_timely(member) and member.owner not in owners

    member = (
        _draw(part, epoch.workers, is_anothers)
        or (_draw(part, epoch.unworked, is_anothers) if anyone else None)
        or _draw(part, epoch.workers, is_timely)
        or _draw(part, epoch.workers, fits)
        or (_draw(part, run.roster.miners, fits) if anyone else None)
    )
    part.alone = member is None
    if member is None:
        return False
    at = (part.assign.stage, part.assign.part)
    part.mergers.append(member.hotkey)
    member.merging.add(at)
    member.given_receipts += 1
    epoch.unagreed.begin(at, run.now)
    run.send(member.hotkey, part.assign)
    return True


def _draw(part: PartMerge, miners: Sequence[Member], fits: Callable[[Member], bool]) -> Member | None:
    """One of the miners, drawn evenly from those that fit: BLAKE3 over block hash, part and number of draw.

    The block hash makes the draw unpredictable before the block; anyone can repeat it afterwards. Draws
    that do not fit are drawn again; where few fit, the last draw is among those alone.
    """
    for _ in range(_TRIES if miners else 0):
        member = miners[_number(part) % len(miners)]
        if fits(member):
            return member
    fitting = [member for member in miners if fits(member)]
    return fitting[_number(part) % len(fitting)] if fitting else None


def _number(part: PartMerge) -> int:
    part.draws += 1
    return int.from_bytes(blake3(f"{part.seed}{part.draws}".encode()).digest())


def note_late(run: RunState, missing: Sequence[str]) -> None:
    """These mergers have missed the deadline of a part; each is named once an epoch."""
    epoch = run.merging_epoch()
    for hotkey in missing:
        if hotkey not in epoch.late_mergers and run.members[hotkey].live:
            epoch.late_mergers.add(hotkey)
            run.slow_mergers[run.members[hotkey].owner] = epoch.epoch + SLOW_EPOCHS
            run.incidents.named.append(f"epoch {epoch.epoch}: {hotkey} did not merge a part in time")
            run.members[hotkey].history.happened(run.now, epoch.epoch, "it did not merge a part in time")
