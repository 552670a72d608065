"""Own starts: with overlap, replicas begin an epoch while their contributions to the one before are merged.

A contribution that is not in the merge is no start: a life that began with it is void, and its miner begins
anew from the anchor. Nothing here has an effect in a run without overlap.
"""

from __future__ import annotations

from orchestrator.coordinator.epoch_state import EpochState, Life
from orchestrator.coordinator.lives import ended_with
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import RunState


def note_commit(run: RunState, member: Member, epoch: EpochState, life: Life) -> None:
    """A life has committed to a version. To its first: a restart from the disk needs no event before it.

    To the epoch's last: its miner may begin the next epoch with its own start.
    """
    if not run.spec.overlaps or life is not epoch.lives[member.hotkey][-1]:
        return
    if life.committed == life.joined and epoch is run.current:
        member.forget_events_before_admission()
    if life.committed == run.spec.schedule.steps and epoch.merges:
        merge = epoch.merges[member.stage]
        if member.hotkey in merge.owing or member.hotkey in merge.early:
            epoch.ended[member.hotkey] = ended_with(run, life)
            member.ended = epoch.epoch
            merge.uncommitted.discard(member.hotkey)
            run.look_at(member)


def void(run: RunState, epoch: EpochState, hotkey: str) -> None:
    """A miner's contribution is not in the merge of `epoch`: what began with it does not count.

    Nothing has, as long as the epoch is the newest.
    """
    if epoch.ended.pop(hotkey, None) is not None and epoch is not run.current:
        run.changed.void[hotkey] = run.members[hotkey]
        run.dirty = True


def settle(epoch: EpochState) -> None:
    """The merge of an epoch is over: what is in it are the own starts of the next one."""
    for merge in epoch.merges:
        for hotkey in merge.deltas.keys() & epoch.ended.keys():
            epoch.ended[hotkey] = epoch.ended[hotkey]._replace(began=merge.deltas[hotkey])


def must_commit(run: RunState, member: Member) -> bool:
    """Whether a miner is still to end the epoch before the current one, so that it is not admitted yet."""
    before = run.epochs.get(run.epoch - 1)
    if not run.spec.overlaps or before is None or not before.merges:
        return False
    merge = before.merges[member.stage]
    return not merge.fixed and member.hotkey in merge.uncommitted


def may_begin_next(run: RunState) -> bool:
    """Whether the live replicas have committed to the last version of the current epoch, or are late."""
    if run.now > commit_deadline(run):
        return True
    waiting = (merge.uncommitted for merge in run.current.merges if not merge.fixed)
    return not any(run.members[hotkey].live for hotkeys in waiting for hotkey in hotkeys)


def commit_deadline(run: RunState) -> float:
    """When the next epoch begins without those who have not ended the current one (Unix seconds)."""
    epoch = run.current
    hotkeys = (hotkey for merge in epoch.merges for hotkey in merge.uncommitted)
    replay_s = max((run.members[hotkey].replay_s for hotkey in hotkeys), default=0.0)
    return epoch.merging_since + run.deadlines.merge.seconds + replay_s
