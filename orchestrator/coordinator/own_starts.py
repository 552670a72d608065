"""Own starts: with overlap, replicas begin an epoch while their contributions to the one before are merged.

A contribution that is not in the merge is no start: a life that began with it is void, and its miner begins
anew from the anchor. Nothing here has an effect in a run without overlap.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.coordinator import patience
from orchestrator.coordinator.epoch_state import EpochState, Life
from orchestrator.coordinator.lives import ended_with
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import RunState


def note_commit(run: RunState, member: Member, epoch: EpochState, life: Life) -> None:
    """A life has committed to a version. To its first: a restart from the disk needs no event before it.

    To the epoch's last: its miner may begin the next epoch with its own start, unless the contributions are
    fixed already, so that its own is in no merge.
    """
    if not run.spec.overlaps or life is not epoch.lives[member.hotkey][-1]:
        return
    if life.committed == life.joined and epoch is run.current:
        member.forget_events_before_admission()
    if life.committed == run.spec.schedule.steps and epoch.merges:
        merge = epoch.merges[member.stage]
        if not merge.fixed and (member.hotkey in merge.owing or member.hotkey in merge.early):
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


def must_be_merged(run: RunState, member: Member) -> bool:
    """Whether a miner is to begin with its own start once the merge of what it is made of is over.

    It had a void life within the audits' window. Nobody can audit such a life, so that there may not be one
    in every other epoch.
    """
    recent = member.voided is not None and member.voided > run.epoch - run.spec.audit.window
    return recent and run.merging == run.epoch - 1 and member.hotkey in run.current.carried


def may_begin_next(run: RunState) -> bool:
    """Whether the live replicas have committed to the last version of the current epoch, or are late.

    Those who are late while half of their stage is not count as slow.
    """
    if next(_uncommitted(run), None) is None:
        return True
    if run.store_away_since is not None or not _is_late(run):
        return False
    for merge in (merge for merge in run.current.merges if not merge.fixed):
        if 2 * len(merge.uncommitted) <= len(merge.owing) + len(merge.deltas):
            for hotkey in sorted(merge.uncommitted):
                if run.members[hotkey].live:
                    patience.note_slow(run, run.members[hotkey])
    return True


def commit_deadline(run: RunState) -> float:
    """When the next epoch begins without those who have not ended the current one (Unix seconds).

    That is soon where all of them were slow of late.
    """
    since = run.current.merging_since
    if _are_slow(run):
        return since + patience.SHORT[0]
    replay_s = max((member.replay_s for member in _uncommitted(run)), default=0.0)
    return since + run.deadlines.merge.seconds + replay_s


def _is_late(run: RunState) -> bool:
    """Whether `commit_deadline` has passed, without a look at each member before it may have."""
    since = run.current.merging_since
    if run.now <= since + patience.SHORT[0]:
        return False
    if run.now <= since + run.deadlines.merge.seconds:
        return _are_slow(run)
    return run.now > commit_deadline(run)


def _are_slow(run: RunState) -> bool:
    return all(patience.is_slow(run, member) for member in _uncommitted(run))


def _uncommitted(run: RunState) -> Iterator[Member]:
    """Live replicas that the next epoch waits for."""
    for merge in run.current.merges:
        for hotkey in () if merge.fixed else merge.uncommitted:
            if (member := run.members[hotkey]).live:
                yield member
