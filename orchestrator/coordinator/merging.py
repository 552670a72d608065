"""The merge at the end of an epoch: contributions are fixed, and two drawn miners merge each part."""

from __future__ import annotations

from blake3 import blake3

from iota.objects import part_count, part_sizes
from iota.protocol.events import Contribution, MergeAssign, MergeReady
from iota.protocol.messages import Delta, Merged
from orchestrator.coordinator.epoch_state import PartMerge, StageMerge
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState

MERGERS = 2
"""Equal copies that decide a part: a single merger could write anything into it."""


def begin_merging(run: RunState) -> None:
    """Start the merge phase: all steps of the epoch are closed, and replicas send pseudo-gradients."""
    run.phase = Phase.MERGING
    epoch = run.current
    epoch.merging_since = run.now
    epoch.merges = [StageMerge() for _ in range(run.stages)]


def part_bytes(run: RunState, stage: int) -> list[int]:
    """Bytes of each partition of a stage's fp32 vector."""
    return [4 * elements for elements in part_sizes(run.spec, stage)]


def counted_tokens(run: RunState, hotkey: str) -> int:
    """Tokens of the current epoch whose gradients this replica summed: its weight in the merge."""
    return run.spec.data.tokens * sum(len(step.order.get(hotkey, ())) for step in run.current.steps)


def take_delta(run: RunState, member: Member, report: Delta) -> None:
    """Record a replica's stored pseudo-gradient; only its first report counts."""
    fits = run.phase is Phase.MERGING and report.epoch == run.epoch and member.ready_epoch == run.epoch
    if not fits or [p.size for p in report.parts] != part_bytes(run, member.stage):
        run.totals.unfit += 1
        return
    merge = run.current.merges[member.stage]
    if not merge.fixed:
        merge.deltas.setdefault(member.hotkey, report.parts)


def fix_contributions(run: RunState) -> None:
    """Fix each stage's contributions once all live replicas sent theirs, or at the deadline.

    A stage that lost all work of the epoch, but has live replicas with the base, keeps its base.
    """
    epoch = run.current
    late = run.now > epoch.merging_since + run.deadlines.merge.seconds
    for stage, merge in enumerate(epoch.merges):
        if merge.fixed:
            continue
        expected = [
            m
            for m in run.miners(stage)
            if m.live
            and m.joined is not None
            and m.ready_epoch == run.epoch
            and counted_tokens(run, m.hotkey) > 0
        ]
        waiting = [m for m in expected if m.hotkey not in merge.deltas]
        if (waiting or not merge.deltas) and not late:
            continue
        if not merge.deltas and (waiting or not any(m.live for m in run.miners(stage))):
            continue  # the run pauses until one of this stage's replicas is back
        for member in waiting:
            run.incidents.named.append(f"epoch {run.epoch}: {member.hotkey} gave no pseudo-gradient in time")
        _assign_parts(run, stage, merge)


def _assign_parts(run: RunState, stage: int, merge: StageMerge) -> None:
    """Fix the stage's contributions, and assign each part to `MERGERS` miners."""
    merge.fixed = True
    if not merge.deltas:
        run.incidents.named.append(f"epoch {run.epoch}: stage {stage} lost all its work and keeps its base")
        return
    run.deadlines.merge.add(run.now - run.current.merging_since)
    contributors = sorted(h for h in merge.deltas if counted_tokens(run, h) > 0) or sorted(merge.deltas)
    for part in range(part_count(run.spec, stage)):
        assign = MergeAssign(
            epoch=run.epoch,
            stage=stage,
            part=part,
            contributions=tuple(
                Contribution(hotkey=h, tokens=max(1, counted_tokens(run, h)), stored=merge.deltas[h][part])
                for h in contributors
            ),
        )
        state = PartMerge(assign, draw_mergers(run, stage, part))
        merge.parts.append(state)
        for _ in range(MERGERS):
            _next_merger(run, state)


def draw_mergers(run: RunState, stage: int, part: int) -> list[str]:
    """All live miners, ordered by BLAKE3 over the block hash, the part and the hotkey.

    The block hash makes the order unpredictable before the block; anyone can check it afterwards.
    """
    seed = f"{run.head.hash}/{run.spec.id}/{run.epoch}/{stage}/{part}/"
    hotkeys = [m.hotkey for m in run.miners() if m.live]
    return sorted(hotkeys, key=lambda h: blake3((seed + h).encode()).digest())


def _next_merger(run: RunState, part: PartMerge, *, not_of_stage: int | None = None) -> bool:
    """Assign the part to the next live miner of the draw; False when none is left."""
    if not part.queue:  # miners that joined since the draw are candidates too
        drawn = draw_mergers(run, part.assign.stage, part.assign.part)
        part.queue = [h for h in drawn if h not in part.mergers]
    for hotkey in list(part.queue):
        member = run.members[hotkey]
        if member.live and member.stage != not_of_stage:
            part.queue.remove(hotkey)
            part.mergers.append(hotkey)
            part.since = run.now
            run.send(hotkey, part.assign)
            return True
    return False


def take_merged(run: RunState, member: Member, report: Merged) -> None:
    """Record an assigned merger's copy of a part; only its first report counts."""
    fits = run.phase is Phase.MERGING and report.epoch == run.epoch and report.stage < run.stages
    parts = run.current.merges[report.stage].parts if fits else []
    if report.part >= len(parts) or member.hotkey not in parts[report.part].mergers:
        run.totals.unfit += 1
        return
    part = parts[report.part]
    if report.stored.size != part.assign.contributions[0].stored.size or part.agreed is not None:
        run.totals.unfit += part.agreed is None
        return
    part.results.setdefault(member.hotkey, report.stored)


def settle_parts(run: RunState) -> None:
    """Accept parts with equal copies, add a third merger where copies differ, and replace late mergers."""
    for stage, merge in enumerate(run.current.merges):
        for part in merge.parts:
            if part.agreed is None:
                _settle_part(run, stage, part)
        if merge.fixed and merge.ready is None and all(p.agreed for p in merge.parts):
            parts = tuple(p.agreed for p in merge.parts if p.agreed is not None)
            merge.ready = MergeReady(epoch=run.epoch, stage=stage, parts=parts)
            for member in run.miners(stage):
                if member.ready_epoch == run.epoch:
                    run.send(member.hotkey, merge.ready)


def _settle_part(run: RunState, stage: int, part: PartMerge) -> None:
    """Accept the part where `MERGERS` copies agree, or the only copy where the run has one miner."""
    digests = [stored.digest for stored in part.results.values()]
    alone = len(part.mergers) == 1 and not part.queue
    for digest in digests:
        if digests.count(digest) >= MERGERS or alone:
            part.agreed = next(s for s in part.results.values() if s.digest == digest)
            for hotkey, stored in part.results.items():
                if stored.digest != digest:
                    run.incidents.named.append(
                        f"epoch {run.epoch} stage {stage}: {hotkey} merged a part wrongly"
                    )
            return
    all_in = len(part.results) == len(part.mergers)
    late = run.now > part.since + run.deadlines.merge.seconds
    if all_in and len(set(digests)) > 1:
        if not _next_merger(run, part, not_of_stage=stage):
            _next_merger(run, part)
        return
    missing = [h for h in part.mergers if h not in part.results]
    if missing and (late or any(not run.members[h].live for h in missing)) and not _next_merger(run, part):
        part.since = run.now
        for hotkey in missing if late else ():
            run.send(hotkey, part.assign)
