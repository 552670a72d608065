"""The contributions to the merge at the end of an epoch: which pseudo-gradients are there by the deadline."""

from __future__ import annotations

from iota.protocol.messages import Delta
from iota.spec import StateRule
from orchestrator.coordinator import evidence, own_starts, patience
from orchestrator.coordinator.epoch_state import Carried, EpochState, StageMerge
from orchestrator.coordinator.lives import ended_with, has_committed_all
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState


def await_deltas(run: RunState) -> None:
    """All steps of the epoch are closed: replicas send pseudo-gradients."""
    run.phase = Phase.MERGING
    epoch = run.current
    epoch.uploads_since = run.now
    epoch.merging_block = run.head.block
    epoch.merges = [StageMerge() for _ in range(run.stages)]
    for hotkey, count in epoch.counted.items():
        member = run.members[hotkey]
        if count and member.joined is not None and run.holds_start(member):
            merge = epoch.merges[member.stage]
            merge.owing.add(hotkey)
            merge.uncommitted.add(hotkey)
            merge.expect(member)


def begin_merge(run: RunState) -> None:
    """Begin the merge of the current epoch: all its steps are closed, and no other merge is under way."""
    run.merging, epoch = run.epoch, run.current
    epoch.merging_since = run.now
    epoch.unfixed, epoch.unmerged = set(range(run.stages)), run.stages
    for member in run.roster.miners:
        member.merging.clear()
    for merge in epoch.merges:
        merge.since = run.now
        for hotkey in list(merge.early):
            accept_delta(run, run.members[hotkey], epoch)
    run.changed.contributions, run.changed.parts = set(epoch.unfixed), set()
    run.changed.unmanned = set()
    run.changed.behind = set(epoch.unfixed)


def take_delta(run: RunState, member: Member, report: Delta) -> None:
    """Record a replica's stored pseudo-gradient; only its first report counts.

    It counts once the receipts of all STEPs and of the last version's COMMIT are there: they may come with a
    later exchange.
    """
    if not is_wanted_delta(run, member, report):
        run.totals.unfit += 1
        return
    epoch = run.epochs[report.epoch]
    evidence.measure_line(run, epoch, member, report.parts)
    epoch.merges[member.stage].early[member.hotkey] = report.parts
    accept_delta(run, member, epoch)


def accept_delta(run: RunState, member: Member, epoch: EpochState) -> None:
    """Count the pseudo-gradient of a member that owes no receipt of training, in time and if it is stored.

    It waits where the merge of the epoch before is still under way.
    """
    merge = epoch.merges[member.stage]
    if merge.fixed or member.hotkey not in merge.early or epoch.epoch != run.merging:
        return
    if not has_committed_all(run, member, epoch):
        return
    merge.deltas[member.hotkey] = merge.early.pop(member.hotkey)
    merge.owing.discard(member.hotkey)
    merge.awaited.discard(member.hotkey)
    patience.note_given(run, member)
    run.changed.contributions.add(member.stage)


def is_wanted_delta(run: RunState, member: Member, report: Delta) -> bool:
    """Whether it is the member's first pseudo-gradient of this merge, in time and of the right sizes.

    A member without counted work has none: its own would be the merge where the others' do not come.
    """
    epoch = run.epochs.get(report.epoch)
    if epoch is None or not epoch.is_awaited:
        return False
    if member.ready_epoch not in range(run.spec.anchor(report.epoch), report.epoch + 1):
        return False
    merge = epoch.merges[member.stage]
    fits = [p.size for p in report.parts] == run.delta_bytes[member.stage]
    new = not merge.fixed and member.hotkey not in merge.deltas and member.hotkey not in merge.early
    return fits and new and epoch.counted[member.hotkey] > 0


def transfer_limit_s(run: RunState, stage: int, vectors: int = 1) -> float:
    """How long a wait for `vectors` of a stage's size lasts: as measured, and at least what they take on
    the slowest line that a miner may have."""
    return max(run.deadlines.merge.seconds, vectors * sum(run.part_bytes[stage]) / run.spec.audit.line)


def fix_contributions(run: RunState) -> list[int]:
    """Fix each stage's contributions once all live replicas sent theirs, or at the deadline.

    Who gave none by then is named. A stage without any keeps its base; returns these stages. A stage that
    nobody is left of has no deadline, since the run cannot go on without it in any case.
    """
    epoch = run.merging_epoch()
    changed, run.changed.contributions = run.changed.contributions, set()
    overdue = {stage for stage in epoch.unfixed if patience.may_be_late(run, epoch.merges[stage])}
    lost = []
    for stage in sorted(overdue | (changed & epoch.unfixed)):
        merge = epoch.merges[stage]
        late = run.now > merge.since + patience.delta_limit_s(run, stage)
        if not late and (merge.awaited or (merge.owing and not merge.deltas)):
            continue
        if not merge.deltas and not run.roster.live[stage]:
            merge.deserted = True
            continue
        if merge.deserted and merge.owing and not merge.extended:
            merge.deserted, merge.extended, merge.since = False, True, run.now
            continue
        _fix(run, stage, merge)
        if not merge.deltas:
            lost.append(stage)
            told = f"epoch {epoch.epoch}: stage {stage} lost all its work and keeps its base"
            run.incidents.named.append(told)
    return lost


def _fix(run: RunState, stage: int, merge: StageMerge) -> None:
    merge.fixed = True
    epoch = run.merging_epoch()
    epoch.unfixed.discard(stage)
    for hotkey in sorted(merge.owing, key=lambda h: run.members[h].order):
        run.incidents.named.append(f"epoch {epoch.epoch}: {hotkey} gave no pseudo-gradient in time")
        run.members[hotkey].history.happened(run.now, epoch.epoch, "it gave no pseudo-gradient in time")
        own_starts.void(run, epoch, hotkey)
        if merge.quorum_s is not None and hotkey in merge.awaited:
            patience.note_slow(run, run.members[hotkey])
    if merge.deltas:
        if not merge.owing:  # one that never comes must not lengthen the deadline
            run.deadlines.merge.add(run.now - merge.since)
        epoch.unassigned.add(stage)


def carried(run: RunState, number: int) -> dict[str, Carried]:
    """Contributor to the merges of an epoch -> what it may begin the next one with.

    Its receipts up to the last COMMIT came before its pseudo-gradient counted, so the seal holds them.
    """
    epoch, feeds = run.epochs.get(number), run.spec.outer.codec.has_feedback
    if epoch is None or not (run.spec.optimizer.state is StateRule.CARRY or feeds):
        return {}
    last = run.spec.schedule.steps
    found = {}
    for hotkey in (hotkey for merge in epoch.merges for hotkey in merge.deltas):
        ended = (life for life in reversed(epoch.lives[hotkey]) if life.committed == last)
        found[hotkey] = ended_with(run, next(ended, None))
    return found


def deadlines(run: RunState) -> list[float | None]:
    """Times (Unix seconds) at which the merge phase may have to go on by itself."""
    epoch, limit = run.merging_epoch(), run.deadlines.merge.seconds
    times: list[float | None] = [
        epoch.merges[s].since + patience.delta_limit_s(run, s) for s in epoch.unfixed
    ]
    if epoch.merge_seed is None:
        times.append(epoch.merging_since + run.limits.max_s)
    bases = [(at, run.bases.disputed.since(at)) for at in run.bases.disputed]
    bases += [(at, made) for at, made in run.bases.made.items() if at[0] == epoch.epoch + 1]
    times += [since + transfer_limit_s(run, stage) for (_, stage), since in bases]
    times += [epoch.merged_at + transfer_limit_s(run, stage) for stage in run.changed.behind]
    claimed = [run.bases.disputed.since(at) for at in run.bases.disputed]
    times += [since + patience.SHORT[0] for since in (epoch.merged_at, *claimed)]
    if run.spec.overlaps and run.phase is Phase.MERGING:
        times.append(own_starts.commit_deadline(run))
    return [*times, epoch.unagreed.next_due(run.now, limit)]
