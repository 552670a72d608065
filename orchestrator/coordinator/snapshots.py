"""Snapshots that validators ask for: their deadlines, and whether each was delivered in time."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from iota.model.snapshot_time import drawn_snapshots, storing_s
from iota.objects import snapshot_bytes
from iota.protocol.events import AuditRequest, SnapshotMissed, SnapshotReady
from iota.protocol.frames import StoredObject
from iota.protocol.messages import SnapshotStored, SnapshotWanted
from iota.protocol.records import MAX_WORDS
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import RunState

FLOOR_SHARE: Final = 1 / 3
"""Share of the audit deadline that every miner has for a snapshot, however small: it may be restarting."""


def max_wanted(run: RunState) -> int:
    """Snapshots of one miner and epoch that one validator may ask for: as many as a draw can demand."""
    return drawn_snapshots(run.spec) + MAX_WORDS


def is_new_wanted(run: RunState, member: Member, report: SnapshotWanted) -> bool:
    """Whether a validator that has revealed its link asks for this snapshot for the first time."""
    epoch, me = run.auditable(report.epoch), member.hotkey
    if epoch is None or me not in epoch.links or not _is_committed(run, epoch, report):
        return False
    wanted = epoch.wanted.get(report.miner, {})
    mine = sum(me in askers for askers in wanted.values())
    return mine < max_wanted(run) and me not in wanted.get(report.version, ())


def _is_committed(run: RunState, epoch: EpochState, report: SnapshotWanted) -> bool:
    """Whether the miner's last life in the epoch had committed to the version when it was sealed."""
    if report.miner not in epoch.committed:
        return False
    joined, newest = epoch.committed[report.miner]
    return report.version <= newest and run.spec.is_committed(report.version, joined)


def take_wanted(run: RunState, member: Member, report: SnapshotWanted) -> None:
    """Ask a miner to store a snapshot, or tell the validator what is decided about it already."""
    epoch = run.auditable(report.epoch)
    if epoch is None or not is_new_wanted(run, member, report):
        run.totals.unfit += 1
        return
    askers = epoch.wanted.setdefault(report.miner, {}).setdefault(report.version, set())
    decided = epoch.snapshots.get((report.miner, report.version))
    miner = run.members[report.miner]
    if decided is not None:
        run.send(member.hotkey, decided)
    elif not askers:
        _request(run, miner, report.epoch, report.version)
    askers.add(member.hotkey)
    miss_of_revoked(run, miner)


def _request(run: RunState, miner: Member, epoch: int, version: int) -> None:
    """Ask a miner for a snapshot. It has the time of those that it owes, one after another.

    One that its owner has revoked is not asked: it owes the snapshot, and `miss_of_revoked` decides it. Who
    gives its pseudo-gradient late shows a slow line, and would have time beyond the audits: `audit.line` is
    the least.
    """
    if run.owners.is_revoked(miner.owner, miner.hotkey):
        miner.owed[epoch, version] = run.now
        return
    size, line = snapshot_bytes(run.spec, miner.stage), max(miner.line, run.spec.audit.line)
    begin = max([run.now, *miner.owed.values()])
    floor = run.now + run.spec.audit.deadline_s * FLOOR_SHARE
    deadline = max(floor, begin + storing_s(size, line))
    miner.owed[epoch, version] = deadline
    heapq.heappush(run.audits.due, (deadline, miner.hotkey, epoch, version))
    run.send(miner.hotkey, AuditRequest(epoch=epoch, version=version, deadline=deadline))


def is_new_stored(run: RunState, member: Member, report: SnapshotStored) -> bool:
    """Whether the miner owes this snapshot, so that its deadline has not passed."""
    return (report.epoch, report.version) in member.owed


def take_stored(run: RunState, member: Member, report: SnapshotStored) -> None:
    """Tell the validators that asked for a snapshot that it is stored."""
    if not is_new_stored(run, member, report):
        run.totals.unfit += run.auditable(report.epoch) is None
        return
    _decide(
        run,
        member,
        SnapshotReady(epoch=report.epoch, miner=member.hotkey, version=report.version, stored=report.stored),
    )


def miss_overdue(run: RunState) -> None:
    """Tell the validators which snapshots were not delivered by their deadlines."""
    due = run.audits.due
    while due and due[0][0] <= run.now:
        deadline, hotkey, epoch, version = heapq.heappop(due)
        miner = run.members[hotkey]
        if miner.owed.get((epoch, version)) != deadline:
            continue
        told = f"its snapshot of version {version} of epoch {epoch} was not stored by its deadline"
        run.incidents.named.append(f"{hotkey}: {told}")
        miner.history.happened(run.now, run.epoch, told)
        _decide(
            run,
            miner,
            SnapshotMissed(epoch=epoch, miner=hotkey, version=version, deadline=deadline, live=miner.live),
        )


def miss_of_revoked(run: RunState, miner: Member) -> None:
    """If its owner has revoked this miner, tell the validators at once that what it owes will not come."""
    if not run.owners.is_revoked(miner.owner, miner.hotkey):
        return
    for epoch, version in list(miner.owed):
        missed = SnapshotMissed(
            epoch=epoch, miner=miner.hotkey, version=version, deadline=run.now, live=False, revoked=True
        )
        _decide(run, miner, missed)


def _decide(run: RunState, miner: Member, event: SnapshotReady | SnapshotMissed) -> None:
    del miner.owed[event.epoch, event.version]
    epoch = run.epochs[event.epoch]
    epoch.snapshots[miner.hotkey, event.version] = event
    for hotkey in sorted(epoch.wanted[miner.hotkey][event.version]):
        run.send(hotkey, event)


def postpone(run: RunState, seconds: float) -> None:
    """Give every snapshot that is owed more time: nobody could deliver for so long."""
    run.audits.due = []
    for miner in run.roster.miners:
        for (epoch, version), deadline in miner.owed.items():
            miner.owed[epoch, version] = deadline + seconds
            run.audits.due.append((deadline + seconds, miner.hotkey, epoch, version))
    heapq.heapify(run.audits.due)


def next_due(run: RunState) -> float | None:
    """The first deadline, or earlier: that of a snapshot which was delivered since."""
    return run.audits.due[0][0] if run.audits.due else None


def repeat(run: RunState, member: Member) -> None:
    """Send a restarted miner the requests that it has not answered. Their deadlines stand."""
    for (epoch, version), deadline in member.owed.items():
        run.send(member.hotkey, AuditRequest(epoch=epoch, version=version, deadline=deadline))


def close(run: RunState, number: int) -> None:
    """Nobody owes a snapshot of an epoch whose audits are closed."""
    for hotkey, versions in run.epochs[number].wanted.items():
        for version in versions:
            run.members[hotkey].owed.pop((number, version), None)


def measure_line(run: RunState, member: Member, parts: Sequence[StoredObject]) -> None:
    """Learn the least that a miner's line can be from a pseudo-gradient that it has stored.

    It began no earlier than the merge phase. Nothing is learnt where that was interrupted.
    """
    since = run.current.uploads_since
    if since is not None and run.now > since:
        member.line = max(member.line, sum(part.size for part in parts) / (run.now - since))
