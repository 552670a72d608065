"""The merge at the end of an epoch: contributions are fixed, and two drawn miners merge each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blake3 import blake3

from iota.protocol.events import Contribution, MergeAssign, MergeReady
from iota.protocol.messages import Delta, Merged
from orchestrator.coordinator import snapshots
from orchestrator.coordinator.epoch_state import PartMerge, StageMerge
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState

MERGERS = 2
"""Equal copies that decide a part: a single merger could write anything into it."""
_TRIES = 64
"""Draws among all miners before one among those that fit: enough while one in ten does."""


def begin_merging(run: RunState) -> None:
    """Start the merge phase: all steps of the epoch are closed, and replicas send pseudo-gradients."""
    run.phase = Phase.MERGING
    epoch = run.current
    epoch.merging_since = epoch.uploads_since = run.now
    epoch.merges = [StageMerge() for _ in range(run.stages)]
    epoch.unfixed, epoch.unmerged = set(range(run.stages)), run.stages
    for member in run.roster.miners:
        member.merging.clear()
    for hotkey, count in epoch.counted.items():
        member = run.members[hotkey]
        if count and member.joined is not None and member.ready_epoch == run.epoch:
            epoch.merges[member.stage].owing.add(hotkey)
            epoch.merges[member.stage].expect(member)
    run.changed.contributions, run.changed.parts = set(epoch.unfixed), set()
    run.changed.unmanned = set()
    run.changed.behind = set(epoch.unfixed)


def counted_tokens(run: RunState, hotkey: str) -> int:
    """Tokens of the current epoch whose gradients this replica summed: its weight in the merge."""
    return run.spec.data.tokens * run.current.counted[hotkey]


def take_delta(run: RunState, member: Member, report: Delta) -> None:
    """Record a replica's stored pseudo-gradient; only its first report counts."""
    if not is_wanted_delta(run, member, report):
        run.totals.unfit += 1
        return
    snapshots.measure_line(run, member, report.parts)
    merge = run.current.merges[member.stage]
    merge.deltas[member.hotkey] = report.parts
    merge.owing.discard(member.hotkey)
    merge.awaited.discard(member.hotkey)
    run.changed.contributions.add(member.stage)


def is_wanted_delta(run: RunState, member: Member, report: Delta) -> bool:
    """Whether it is the member's first pseudo-gradient of this merge, in time and of the right sizes.

    A member without counted work has none: its own would be the merge where the others' do not come.
    """
    if run.phase is not Phase.MERGING or not report.epoch == run.epoch == member.ready_epoch:
        return False
    merge = run.current.merges[member.stage]
    fits = [p.size for p in report.parts] == run.part_bytes[member.stage]
    new = not merge.fixed and member.hotkey not in merge.deltas
    return fits and new and run.current.counted[member.hotkey] > 0


def fix_contributions(run: RunState) -> list[int]:
    """Fix each stage's contributions once all live replicas sent theirs, or at the deadline.

    A stage that lost all work of the epoch, but has live replicas with the base, keeps its base. Returns
    these stages.
    """
    epoch = run.current
    late = run.now > epoch.merging_since + run.deadlines.merge.seconds
    changed, run.changed.contributions = run.changed.contributions, set()
    lost = []
    for stage in sorted(epoch.unfixed if late else changed & epoch.unfixed):
        merge = epoch.merges[stage]
        if (merge.awaited or not merge.deltas) and not late:
            continue
        holding = run.roster.holding(stage, run.epoch)
        if not merge.deltas and (not run.roster.live[stage] or 0 < len(merge.awaited) >= holding):
            continue  # the run pauses until one of this stage's replicas is back, or gives what it owes
        for hotkey in sorted(merge.awaited, key=lambda h: run.members[h].order):
            run.incidents.named.append(f"epoch {run.epoch}: {hotkey} gave no pseudo-gradient in time")
        epoch.unfixed.discard(stage)
        merge.fixed = True
        if merge.deltas:
            _assign_parts(run, stage, merge)
        else:
            lost.append(stage)
            told = f"epoch {run.epoch}: stage {stage} lost all its work and keeps its base"
            run.incidents.named.append(told)
    return lost


def _assign_parts(run: RunState, stage: int, merge: StageMerge) -> None:
    """Assign each part of a stage's merge to `MERGERS` miners."""
    run.deadlines.merge.add(run.now - run.current.merging_since)
    tokens = [(h, counted_tokens(run, h)) for h in sorted(merge.deltas)]
    for part in range(len(run.part_bytes[stage])):
        assign = MergeAssign(
            epoch=run.epoch,
            stage=stage,
            part=part,
            contributions=tuple(
                Contribution(hotkey=h, tokens=weight, stored=merge.deltas[h][part]) for h, weight in tokens
            ),
        )
        seed = f"{run.head.hash}/{run.spec.id}/{run.epoch}/{stage}/{part}/"
        state = PartMerge(assign, seed, MERGERS)
        merge.parts.append(state)
        run.current.unagreed.begin((stage, part), run.now)
        for _ in range(MERGERS):
            _next_merger(run, state)


def _next_merger(run: RunState, part: PartMerge, *, not_of_stage: int | None = None) -> bool:
    """Assign the part to one more miner; False when none is left."""

    def fits(member: Member) -> bool:
        return member.live and member.stage != not_of_stage and member.hotkey not in part.mergers

    member = _draw(run, part, fits)
    part.alone = member is None and not_of_stage is None
    if member is None:
        return False
    at = (part.assign.stage, part.assign.part)
    part.mergers.append(member.hotkey)
    member.merging.add(at)
    run.current.unagreed.begin(at, run.now)
    run.send(member.hotkey, part.assign)
    return True


def _draw(run: RunState, part: PartMerge, fits: Callable[[Member], bool]) -> Member | None:
    """A miner drawn evenly from those that fit, by BLAKE3 over block hash, part and number of the draw.

    The block hash makes the draw unpredictable before the block; anyone can repeat it afterwards. Draws
    that do not fit are drawn again; where few fit, the last draw is among those alone.
    """
    miners = run.roster.miners
    for _ in range(_TRIES):
        member = miners[_number(part) % len(miners)]
        if fits(member):
            return member
    fitting = [member for member in miners if fits(member)]
    return fitting[_number(part) % len(fitting)] if fitting else None


def _number(part: PartMerge) -> int:
    part.draws += 1
    return int.from_bytes(blake3(f"{part.seed}{part.draws}".encode()).digest())


def take_merged(run: RunState, member: Member, report: Merged) -> None:
    """Record an assigned merger's copy of a part; only its first report counts."""
    if (part := wanted_part(run, member, report)) is None:
        run.totals.unfit += 1
        return
    part.results[member.hotkey] = report.stored
    run.changed.parts.add((report.stage, report.part))


def wanted_part(run: RunState, member: Member, report: Merged) -> PartMerge | None:
    """The part that is not agreed and that this member was drawn to merge, without its copy; else None."""
    fits = run.phase is Phase.MERGING and report.epoch == run.epoch and report.stage < run.stages
    parts = run.current.merges[report.stage].parts if fits else []
    part = parts[report.part] if report.part < len(parts) else None
    if part is None or part.agreed is not None or member.hotkey not in part.mergers:
        return None
    size = part.assign.contributions[0].stored.size
    return part if report.stored.size == size and member.hotkey not in part.results else None


def settle_parts(run: RunState, lost: Sequence[int]) -> None:
    """Accept parts with equal copies, add a third merger where copies differ, and replace late mergers.

    `lost` are stages whose merge has no parts, and is ready at once.
    """
    for stage in lost:
        _finish(run, stage, run.current.merges[stage])
    epoch, changed = run.current, run.changed.parts
    run.changed.parts = set()
    for at in sorted({*changed, *epoch.unagreed.overdue(run.now, run.deadlines.merge.seconds)}):
        stage, number = at
        merge = epoch.merges[stage]
        part = merge.parts[number]
        if part.agreed is None:
            _settle_part(run, at, part)
            merge.agreed += part.agreed is not None
            if merge.agreed == len(merge.parts):
                _finish(run, stage, merge)


def _finish(run: RunState, stage: int, merge: StageMerge) -> None:
    """Tell the stage's replicas that its merge is ready."""
    parts = tuple(p.agreed for p in merge.parts if p.agreed is not None)
    merge.ready = MergeReady(epoch=run.epoch, stage=stage, parts=parts)
    run.current.unmerged -= 1
    for member in run.miners(stage):
        if member.ready_epoch == run.epoch:
            run.send(member.hotkey, merge.ready)


def _settle_part(run: RunState, at: tuple[int, int], part: PartMerge) -> None:
    """Accept the part where `MERGERS` copies agree, or the only copy where the run has one miner."""
    stage, _ = at
    digests = [stored.digest for stored in part.results.values()]
    for digest in digests:
        if digests.count(digest) >= MERGERS or (part.alone and len(part.mergers) == 1):
            part.agreed = next(s for s in part.results.values() if s.digest == digest)
            run.current.unagreed.end(at)
            for hotkey, stored in part.results.items():
                if stored.digest != digest:
                    run.incidents.named.append(
                        f"epoch {run.epoch} stage {stage}: {hotkey} merged a part wrongly"
                    )
            return
    all_in = len(part.results) == len(part.mergers)
    late = run.now > run.current.unagreed.since(at) + run.deadlines.merge.seconds
    if all_in and len(set(digests)) > 1:
        part.copies = len(part.mergers) + 1
        if not _next_merger(run, part, not_of_stage=stage) and not _next_merger(run, part):
            _wait_for_miner(run, at)
        return
    missing = [h for h in part.mergers if h not in part.results]
    coming = len(part.results) + sum(run.members[h].live for h in missing)
    if missing and (late or coming < part.copies) and not _next_merger(run, part):
        _wait_for_miner(run, at)
        for hotkey in missing if late else ():
            run.send(hotkey, part.assign)


def _wait_for_miner(run: RunState, at: tuple[int, int]) -> None:
    """Nobody is left to draw: draw again when a miner comes, or at the deadline."""
    run.current.unagreed.begin(at, run.now)
    run.changed.unmanned.add(at)
