"""The end of an epoch: contributions, merges by two drawn miners, and the next base."""

from __future__ import annotations

from blake3 import blake3

from iota.model.layout import count, run_shapes
from iota.protocol.events import BaseAssign, Contribution, MergeAssign, MergeReady
from iota.protocol.messages import BaseStored, Delta, Merged, Ready
from iota.protocol.records import BaseRecord
from orchestrator.coordinator.epoch_state import PartMerge, StageMerge
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState

MERGERS = 2


def begin_merging(run: RunState) -> None:
    run.phase = Phase.MERGING
    epoch = run.current
    epoch.merging_since = run.now
    epoch.merges = [StageMerge() for _ in range(run.stages)]


def part_sizes(run: RunState, stage: int) -> list[int]:
    """Bytes of each partition of a stage's fp32 vector."""
    left, size, parts = count(run_shapes(run.spec, stage)), run.spec.outer.part_elements, []
    while left > 0:
        parts.append(4 * min(left, size))
        left -= size
    return parts


def counted_tokens(run: RunState, hotkey: str) -> int:
    return run.spec.data.tokens * sum(len(step.order.get(hotkey, ())) for step in run.current.steps)


def take_delta(run: RunState, member: Member, report: Delta) -> None:
    fits = run.phase is Phase.MERGING and report.epoch == run.epoch and member.ready_epoch == run.epoch
    if not fits or [p.size for p in report.parts] != part_sizes(run, member.stage):
        run.totals.unfit += 1
        return
    merge = run.current.merges[member.stage]
    if not merge.fixed:
        merge.deltas.setdefault(member.hotkey, report.parts)


def fix_contributions(run: RunState) -> None:
    """Fix each stage's contributions once all live replicas gave theirs, or at the deadline.

    Where every replica lost the epoch's work, and others hold the base, the stage keeps its base.
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
            continue  # the run pauses: only this stage's replicas can go on
        for member in waiting:
            run.incidents.named.append(f"epoch {run.epoch}: {member.hotkey} gave no pseudo-gradient in time")
        _assign_parts(run, stage, merge)


def _assign_parts(run: RunState, stage: int, merge: StageMerge) -> None:
    merge.fixed = True
    if not merge.deltas:
        run.incidents.named.append(f"epoch {run.epoch}: stage {stage} lost all its work and keeps its base")
        return
    run.deadlines.merge.add(run.now - run.current.merging_since)
    givers = sorted(h for h in merge.deltas if counted_tokens(run, h) > 0) or sorted(merge.deltas)
    for part in range(len(part_sizes(run, stage))):
        assign = MergeAssign(
            epoch=run.epoch,
            stage=stage,
            part=part,
            contributions=tuple(
                Contribution(hotkey=h, tokens=max(1, counted_tokens(run, h)), stored=merge.deltas[h][part])
                for h in givers
            ),
        )
        state = PartMerge(assign, draw_mergers(run, stage, part))
        merge.parts.append(state)
        for _ in range(MERGERS):
            _next_merger(run, state)


def draw_mergers(run: RunState, stage: int, part: int) -> list[str]:
    """All live miners in the order of a public draw: BLAKE3 over the block hash, the part and the hotkey."""
    seed = f"{run.head.hash}/{run.spec.id}/{run.epoch}/{stage}/{part}/"
    hotkeys = [m.hotkey for m in run.miners() if m.live]
    return sorted(hotkeys, key=lambda h: blake3((seed + h).encode()).digest())


def _next_merger(run: RunState, part: PartMerge, *, not_of_stage: int | None = None) -> bool:
    """Give the part to the next drawn live miner; False when none is left."""
    if not part.queue:  # those who came later are drawn too
        drawn = draw_mergers(run, part.assign.stage, part.assign.part)
        part.queue = [h for h in drawn if h not in part.mergers]
    for hotkey in list(part.queue):
        member = run.members[hotkey]
        if member.live and not member.left and member.stage != not_of_stage:
            part.queue.remove(hotkey)
            part.mergers.append(hotkey)
            part.since = run.now
            run.send(hotkey, part.assign)
            return True
    return False


def take_merged(run: RunState, member: Member, report: Merged) -> None:
    if run.phase is not Phase.MERGING or report.epoch != run.epoch or report.stage >= run.stages:
        run.totals.unfit += 1
        return
    parts = run.current.merges[report.stage].parts
    if report.part >= len(parts) or member.hotkey not in parts[report.part].mergers:
        run.totals.unfit += 1
        return
    part = parts[report.part]
    if report.stored.size != part.assign.contributions[0].stored.size or part.agreed is not None:
        run.totals.unfit += part.agreed is None
        return
    part.results.setdefault(member.hotkey, report.stored)


def settle_parts(run: RunState) -> None:
    """Agree on parts whose copies are equal, call a third where they differ, replace late mergers."""
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


def take_ready(run: RunState, member: Member, report: Ready) -> None:
    """A replica says that it holds a base. What counts is the digest that its stage agrees on."""
    at = (report.epoch, member.stage)
    following = (
        run.phase is Phase.MERGING
        and report.epoch == run.epoch + 1
        and run.current.merges[member.stage].ready is not None
    )
    if report.epoch <= member.ready_epoch or not (following or report.epoch == run.epoch):
        return
    run.bases.claims.setdefault(at, {})[member.hotkey] = report.digest
    run.bases.claimed_since.setdefault(at, run.now)
    run.dirty = True


def settle_bases(run: RunState) -> None:
    """Agree on the digest of each claimed base, and let in who holds it.

    Two equal claims decide, or the only one where the stage has one replica; after the deadline the
    most frequent.
    """
    for at, claims in list(run.bases.claims.items()):
        epoch, stage = at
        if at not in run.bases.digests:
            digests = sorted(claims.values(), key=lambda d: (-_frequency(claims, d), d))
            expected = [m for m in run.miners(stage) if m.live and m.ready_epoch == epoch - 1]
            holders = len({m.hotkey for m in expected} | claims.keys())
            if epoch == 0:
                holders = max(holders, run.spec.layout.replicas)
            late = run.now > run.bases.claimed_since[at] + run.deadlines.merge.seconds
            if _frequency(claims, digests[0]) < min(2, holders) and not late:
                continue
            run.bases.digests[at] = digests[0]
        for hotkey, digest in sorted(claims.items()):
            _hold(run, run.members[hotkey], epoch, digest == run.bases.digests[at])
        del run.bases.claims[at]


def _frequency(claims: dict[str, str], digest: str) -> int:
    return sum(d == digest for d in claims.values())


def _hold(run: RunState, member: Member, epoch: int, agrees: bool) -> None:
    if epoch <= member.ready_epoch:
        return
    run.dirty = True
    if not agrees:
        if member.misloaded < epoch:  # once: it is told to load the base of its stage
            member.misloaded, member.told_base = epoch, -1
            run.incidents.named.append(f"{member.hotkey} holds another base of epoch {epoch} than its stage")
        return
    member.ready_epoch = epoch
    member.joined = None
    # A restart from disk needs what comes after this base; one epoch more is kept for what is in flight.
    member.events = [e for e in member.events if e[0] > member.cursor_start]
    member.cursor_start = member.next_seq - 1
    if run.phase is Phase.MERGING and epoch == run.epoch:
        ready = run.current.merges[member.stage].ready
        if ready is not None:
            run.send(member.hotkey, ready)  # it loaded this base after the merge had been announced
    if (epoch, member.stage) not in run.bases.assigned:
        assign_base(run, epoch, member.stage)


def assign_base(run: RunState, epoch: int, stage: int) -> None:
    """Ask a live replica that holds the base to store it: another one than before, if there is one."""
    before = run.bases.assigned.get((epoch, stage), ("", 0.0))[0]
    holders = [m for m in run.miners(stage) if m.live and m.ready_epoch >= epoch]
    for member in sorted(holders, key=lambda m: (m.hotkey == before, m.ready_epoch != epoch, m.order)):
        run.bases.assigned[epoch, stage] = (member.hotkey, run.now)
        run.send(member.hotkey, BaseAssign(epoch=epoch))
        return


def take_base(run: RunState, member: Member, report: BaseStored) -> None:
    at = (report.epoch, member.stage)
    assigned = run.bases.assigned.get(at, ("", 0.0))[0]
    if assigned != member.hotkey or run.bases.digests.get(at) != report.digest:
        run.totals.unfit += 1
        return
    if at in run.bases.stored:
        return
    run.bases.stored[at] = BaseRecord(
        epoch=report.epoch, stage=member.stage, digest=report.digest, parts=report.parts
    )
    run.dirty = True
