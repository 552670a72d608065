"""What the state of a run allows after an entry: phases, epochs, steps and merges go on."""

from __future__ import annotations

from iota.protocol.events import RunEnd
from orchestrator.coordinator import (
    auditing,
    bases,
    membership,
    merge_parts,
    merger_draws,
    merging,
    microbatches,
    own_starts,
    patience,
    rerouting,
    routes,
    sealing,
)
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.state import Phase, RunState


def advance(run: RunState) -> None:
    """Do what the state now allows, again after each change of phase or epoch.

    Checks that depend on rare changes run only when `state.dirty` is set, and of what has changed alone.
    """
    before = None
    while before != (run.phase, run.epoch, run.merging) or run.changed.void:
        before = (run.phase, run.epoch, run.merging)
        dirty, run.dirty = run.dirty, False
        if dirty:
            membership.begin_anew(run)
            bases.settle_bases(run)
            membership.offer_bases(run)
            bases.reassign_bases(run)
        if run.phase is Phase.GATHERING and dirty:
            _gather(run)
        if run.phase is Phase.TRAINING:
            _train(run, dirty)
        if run.phase is Phase.MERGING and run.merging is None and run.current.merged_block is None:
            merging.begin_merge(run)
        if run.merging is not None and run.store_away_since is None:
            _merge(run)
        if run.phase is Phase.MERGING and run.spec.overlaps:
            _overlap(run)
        if dirty:
            auditing.close_audits(run)
            _end_run(run)


def _gather(run: RunState) -> None:
    """Begin the first epoch once every stage has its planned replicas, or one each at the deadline."""
    ready = [run.holding(stage) for stage in range(run.stages)]
    if min(ready) == 0:
        run.gathering_since = None
        return
    if run.gathering_since is None:
        run.gathering_since = run.now
    if min(ready) >= run.spec.layout.replicas or run.now > run.gathering_since + run.limits.start_s:
        _begin_epoch(run, 0)


def _begin_epoch(run: RunState, number: int) -> None:
    run.epoch, run.phase, run.dirty = number, Phase.TRAINING, True
    sealing.let_go(run, number - 1)
    if number not in run.epochs:
        ended = run.epochs[number - 1].ended if run.spec.overlaps else merging.carried(run, number - 1)
        run.epochs[number] = EpochState(number, ended)
    for stage in range(run.stages):
        for member in run.miners(stage):
            if member.ready_epoch < run.anchor:
                run.changed.offers[member.hotkey] = member
    for member in run.roster.miners if run.spec.overlaps else ():  # who has left too
        member.joined = None
        run.changed.admissions[member.hotkey] = member


def _train(run: RunState, dirty: bool) -> None:
    """Close finished steps, admit miners, re-route lost work, plan ahead; after the last step, merge."""
    closed = microbatches.close_steps(run)
    if dirty:
        membership.admit(run)
        rerouting.repair(run)
        closed = microbatches.close_steps(run) or closed
    if dirty or closed:
        routes.plan_ahead(run)
    if run.current.closed_steps == run.spec.schedule.steps:
        merging.await_deltas(run)


def _merge(run: RunState) -> None:
    """Advance the merge. Once every stage holds the next base it is over, and the run if it was the last.

    Without overlap the next epoch begins then. The seal of this epoch waits for a block, and training
    does not wait for the seal.
    """
    epoch = run.merging_epoch()
    lost = merging.fix_contributions(run)
    merger_draws.assign_parts(run)
    merge_parts.settle_parts(run, lost)
    following, behind = epoch.epoch + 1, run.changed.behind
    if epoch.unmerged:
        return
    epoch.merged_at = epoch.merged_at or max(run.now, run.heard_by)
    while behind:
        stage = next(iter(behind))
        ready = run.roster.holding(stage, following) > 0 or bases.stands_alone(run, (following, stage))
        if not ready or bases.are_awaited(run, stage):
            return
        behind.discard(stage)
    sealing.note_merged(run, epoch)
    last = following == run.spec.schedule.epochs
    if last and run.newest_base != following:
        return
    for member in epoch.silent:
        patience.note_slow(run, member)
    run.merging = None
    run.totals.merges.append(len(run.totals.losses))
    own_starts.settle(epoch)
    if last:
        run.phase, run.dirty = Phase.FINISHED, True
    elif not run.spec.overlaps:
        _begin_epoch(run, following)


def _overlap(run: RunState) -> None:
    """Begin the next epoch once the replicas have ended this one, whose merge goes on meanwhile."""
    last = run.epoch + 1 == run.spec.schedule.epochs
    if not last and run.current.merging_since and own_starts.may_begin_next(run):
        _begin_epoch(run, run.epoch + 1)


def _end_run(run: RunState) -> None:
    """Announce the end of the run once it is finished and all audits are closed."""
    open_audits = any(not e.audits_closed for e in run.epochs.values())
    if run.phase is Phase.FINISHED and not open_audits and not run.run_end_sent:
        run.run_end_sent = True
        run.send_all(RunEnd())
