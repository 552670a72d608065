"""Evidence that validators ask miners for: its deadlines, and whether it was delivered in time."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from iota.model.snapshot_time import drawn_snapshots, storing_s
from iota.objects import frames_bytes, snapshot_bytes, stage_feedback_bytes
from iota.protocol.events import EvidenceMissed, EvidenceReady, EvidenceRequest
from iota.protocol.frames import EvidenceItem, StoredObject
from iota.protocol.messages import EvidenceStored, EvidenceWanted
from iota.protocol.records import MAX_WORDS
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Debt, Member, Owed
from orchestrator.coordinator.state import RunState

FLOOR_SHARE: Final = 1 / 3
"""Share of the audit deadline that every miner has for evidence, however small: it may be restarting."""
_FRAMES_AN_OP: Final = 2
"""Frames that one op adds to those of its step: one that it read, and one that it sent."""


def max_wanted(run: RunState, item: EvidenceItem) -> int:
    """How much evidence of one kind, miner and epoch one validator may ask for.

    Of snapshots as many as a draw can demand; of frames every step: whose frames are gone is not drawn.
    """
    if item is EvidenceItem.FRAMES:
        return run.spec.schedule.steps
    if item is EvidenceItem.FEEDBACK:
        return 1
    return drawn_snapshots(run.spec) + MAX_WORDS


def _name(report: EvidenceWanted | EvidenceStored | EvidenceReady | EvidenceMissed) -> Owed:
    return report.epoch, report.item, report.version


def is_new_wanted(run: RunState, member: Member, report: EvidenceWanted) -> bool:
    """Whether a validator that has revealed its link asks for this evidence for the first time."""
    epoch, me = run.auditable(report.epoch), member.hotkey
    if epoch is None or me not in epoch.links or not _exists(run, epoch, report):
        return False
    wanted = epoch.wanted.get(report.miner, {})
    mine = sum(me in askers for (_, item, _), askers in wanted.items() if item is report.item)
    return mine < max_wanted(run, report.item) and me not in wanted.get(_name(report), ())


def _exists(run: RunState, epoch: EpochState, report: EvidenceWanted) -> bool:
    """Whether the miner's last life had committed to the version, or it had frames of the step."""
    if report.item is EvidenceItem.FRAMES:
        return run.stages > 1 and _ops(run, epoch, report.miner, report.version) > 0
    if report.miner not in epoch.committed:
        return False
    joined, newest = epoch.committed[report.miner]
    if report.item is EvidenceItem.FEEDBACK:
        return run.spec.outer.codec.has_feedback and report.version == joined
    return report.version <= newest and run.spec.is_committed(report.version, joined)


def _ops(run: RunState, epoch: EpochState, miner: str, step: int) -> int:
    """Ops on microbatches of a step that the miner has receipts of, or a word in the record."""
    if miner not in epoch.stages or step >= len(epoch.steps):
        return 0
    words = sum(word.step == step for word in epoch.words.get(miner, ()))
    return words + epoch.steps[step].given.receipted(epoch.stages[miner], run.members[miner].order)


def take_wanted(run: RunState, member: Member, report: EvidenceWanted) -> None:
    """Ask a miner to store evidence, or tell the validator what is decided about it already."""
    epoch = run.auditable(report.epoch)
    if epoch is None or not is_new_wanted(run, member, report):
        run.totals.unfit += 1
        return
    name = _name(report)
    askers = epoch.wanted.setdefault(report.miner, {}).setdefault(name, set())
    decided = epoch.delivered.get((report.miner, name))
    miner = run.members[report.miner]
    if decided is not None:
        run.send(member.hotkey, decided)
    else:
        rank = sum(member.hotkey in others for others in epoch.wanted[report.miner].values())
        if not askers or (name in miner.owed and rank < miner.owed[name].rank):
            _request(run, miner, name, _size(run, epoch, report), rank)
    askers.add(member.hotkey)
    miss_of_revoked(run, miner)


def _size(run: RunState, epoch: EpochState, report: EvidenceWanted) -> int:
    """Bytes of what is asked for, at the most."""
    stage = run.members[report.miner].stage
    if report.item is EvidenceItem.SNAPSHOT:
        return snapshot_bytes(run.spec, stage)
    if report.item is EvidenceItem.FEEDBACK:
        return stage_feedback_bytes(run.spec, stage)
    return frames_bytes(run.spec, _FRAMES_AN_OP * _ops(run, epoch, report.miner, report.version))


def _request(run: RunState, miner: Member, name: Owed, size: int, rank: int) -> None:
    """Ask a miner for evidence of `size` bytes. It has the time of what it owes, one after another.

    The first that any validator asks for comes before the second that another one asked for earlier, and so
    on: a validator that asks for all that it may makes its own evidence late, and nobody else's. What comes
    later then is due later, which the miner need not be told: it goes by ranks. What it is storing already
    may come first. Nobody has more time because another validator asks for the same.

    One that its owner has revoked is not asked: it owes the evidence, and `miss_of_revoked` decides it. Who
    gives its pseudo-gradient late shows a slow line, and would have time beyond the audits: `audit.line` is
    the least.
    """
    if run.owners.is_revoked(miner.owner, miner.hotkey):
        miner.owed[name] = Debt(run.now)
        return
    earlier = miner.owed.pop(name, None)
    seconds = storing_s(size, max(miner.line, run.spec.audit.line))
    before = [debt.deadline for debt in miner.owed.values() if debt.rank <= rank]
    after = {other: debt for other, debt in miner.owed.items() if debt.rank > rank}
    begun = max((debt.seconds for debt in after.values()), default=0.0)
    floor = run.now + run.spec.audit.deadline_s * FLOOR_SHARE
    deadline = max(floor, max([run.now, *before]) + begun + seconds)
    if earlier is not None:
        deadline = min(deadline, earlier.deadline)
    _owe(run, miner, name, Debt(deadline, rank, seconds))
    _send_request(run, miner, name)
    for other, debt in after.items():
        if earlier is not None and debt.deadline > earlier.deadline:
            continue  # it came after this one before
        _owe(run, miner, other, debt._replace(deadline=debt.deadline + seconds))


def _owe(run: RunState, miner: Member, name: Owed, debt: Debt) -> None:
    miner.owed[name] = debt
    heapq.heappush(run.audits.due, (debt.deadline, miner.hotkey, name))


def _send_request(run: RunState, miner: Member, name: Owed) -> None:
    (epoch, item, version), debt = name, miner.owed[name]
    request = EvidenceRequest(epoch=epoch, item=item, version=version, rank=debt.rank, deadline=debt.deadline)
    run.send(miner.hotkey, request)


def is_new_stored(run: RunState, member: Member, report: EvidenceStored) -> bool:
    """Whether the miner owes this evidence, so that its deadline has not passed."""
    return _name(report) in member.owed


def take_stored(run: RunState, member: Member, report: EvidenceStored) -> None:
    """Tell the validators that asked for evidence that it is stored."""
    if not is_new_stored(run, member, report):
        run.totals.unfit += run.auditable(report.epoch) is None
        return
    ready = EvidenceReady(
        epoch=report.epoch,
        miner=member.hotkey,
        item=report.item,
        version=report.version,
        stored=report.stored,
    )
    _decide(run, member, ready)


def miss_overdue(run: RunState) -> None:
    """Tell the validators what was not delivered by its deadline."""
    due = run.audits.due
    while due and due[0][0] <= run.now:
        deadline, hotkey, name = heapq.heappop(due)
        miner = run.members[hotkey]
        debt = miner.owed.get(name)
        if debt is None or debt.deadline != deadline:
            continue
        epoch, item, version = name
        what = {
            EvidenceItem.SNAPSHOT: f"snapshot of version {version} of epoch {epoch} was",
            EvidenceItem.FRAMES: f"frames of step {version} of epoch {epoch} were",
            EvidenceItem.FEEDBACK: f"error feedback at the start of epoch {epoch} was",
        }[item]
        told = f"its {what} not stored by the deadline"
        run.incidents.named.append(f"{hotkey}: {told}")
        miner.history.happened(run.now, run.epoch, told)
        _decide(run, miner, _missed(miner, name, deadline, live=miner.live))


def miss_of_revoked(run: RunState, miner: Member) -> None:
    """If its owner has revoked this miner, tell the validators at once that what it owes will not come."""
    if not run.owners.is_revoked(miner.owner, miner.hotkey):
        return
    for name in list(miner.owed):
        _decide(run, miner, _missed(miner, name, run.now, live=False, revoked=True))


def _missed(
    miner: Member, name: Owed, deadline: float, *, live: bool, revoked: bool = False
) -> EvidenceMissed:
    epoch, item, version = name
    return EvidenceMissed(
        epoch=epoch,
        miner=miner.hotkey,
        item=item,
        version=version,
        deadline=deadline,
        live=live,
        revoked=revoked,
    )


def _decide(run: RunState, miner: Member, event: EvidenceReady | EvidenceMissed) -> None:
    name = _name(event)
    del miner.owed[name]
    epoch = run.epochs[event.epoch]
    epoch.delivered[miner.hotkey, name] = event
    for hotkey in sorted(epoch.wanted[miner.hotkey][name]):
        run.send(hotkey, event)


def postpone(run: RunState, seconds: float) -> None:
    """Give everything that is owed more time: nobody could deliver for so long."""
    run.audits.due = []
    for miner in run.roster.miners:
        for name, debt in miner.owed.items():
            miner.owed[name] = debt._replace(deadline=debt.deadline + seconds)
            run.audits.due.append((debt.deadline + seconds, miner.hotkey, name))
    heapq.heapify(run.audits.due)


def next_due(run: RunState) -> float | None:
    """The first deadline, or earlier: that of evidence which was delivered since."""
    return run.audits.due[0][0] if run.audits.due else None


def repeat(run: RunState, member: Member) -> None:
    """Send a restarted miner the requests that it has not answered. Their deadlines stand."""
    for name in member.owed:
        _send_request(run, member, name)


def close(run: RunState, number: int) -> None:
    """Nobody owes evidence of an epoch whose audits are closed."""
    for hotkey, wanted in run.epochs[number].wanted.items():
        for name in wanted:
            run.members[hotkey].owed.pop(name, None)


def measure_line(run: RunState, epoch: EpochState, member: Member, parts: Sequence[StoredObject]) -> None:
    """Learn the least that a miner's line can be from a pseudo-gradient that it has stored.

    It began no earlier than the last step of the epoch closed. Nothing is learnt where that was interrupted.
    """
    since = epoch.uploads_since
    if since is not None and run.now > since:
        member.line = max(member.line, sum(part.size for part in parts) / (run.now - since))
