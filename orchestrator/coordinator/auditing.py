"""Seals, draws and verdicts: what the coordinator records of the audits. It judges nothing itself."""

from __future__ import annotations

from iota.objects import epoch_prefixes
from iota.protocol.events import AuditRequest, AuditsClosed, EpochClose, SnapshotReady
from iota.protocol.messages import (
    AuditsDone,
    Heldout,
    Reveal,
    SnapshotStored,
    SnapshotWanted,
    Verdict,
    WeightsSet,
)
from iota.protocol.receipts import merkle_root
from iota.protocol.records import CountedList, DeltaRecord, EpochRecord, MinerRecord
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState

MAX_VERDICTS = 64
"""Of one validator about one miner and epoch."""


def seal(run: RunState) -> None:
    """Close the epoch's record: nothing that arrives from now on belongs to it."""
    epoch = run.current
    if epoch.seal is not None or not all(merge.fixed for merge in epoch.merges):
        return
    digests = [d for hotkey in sorted(epoch.receipts) for d in epoch.receipts[hotkey]]
    epoch.seal = EpochClose(
        epoch=run.epoch,
        root=merkle_root(digests),
        receipts=len(digests),
        block=run.head.block + run.spec.audit.seal_blocks,
    )
    epoch.sealed_at = run.now
    for member in run.members.values():
        if not member.left:
            run.send(member.hotkey, epoch.seal)


def _auditable(run: RunState, number: int) -> EpochState | None:
    epoch = run.epochs.get(number)
    return epoch if epoch and epoch.seal is not None and not epoch.audits_closed else None


def take_reveal(run: RunState, member: Member, report: Reveal) -> None:
    """Keep a validator's link for a sealed epoch; the first one stands."""
    epoch = _auditable(run, report.epoch)
    if epoch is not None:
        epoch.links.setdefault(member.hotkey, report.link)


def take_wanted(run: RunState, member: Member, report: SnapshotWanted) -> None:
    """Ask a miner for a snapshot on behalf of a validator that has revealed its link, or say where it is."""
    epoch = _auditable(run, report.epoch)
    target = run.members.get(report.miner)
    if (
        epoch is None
        or target is None
        or member.hotkey not in epoch.links
        or report.miner not in epoch.stages
    ):
        run.totals.unfit += 1
        return
    key = (report.miner, report.version)
    stored = epoch.snapshots.get(key)
    if stored is not None:
        run.send(member.hotkey, _ready(report.miner, stored))
    elif not epoch.wanted[key]:
        run.send(report.miner, AuditRequest(epoch=report.epoch, version=report.version))
    epoch.wanted[key].add(member.hotkey)


def _ready(miner: str, report: SnapshotStored) -> SnapshotReady:
    return SnapshotReady(epoch=report.epoch, miner=miner, version=report.version, stored=report.stored)


def take_snapshot(run: RunState, member: Member, report: SnapshotStored) -> None:
    """Pass a stored snapshot on to the validators that wait for it."""
    epoch = _auditable(run, report.epoch)
    key = (member.hotkey, report.version)
    if epoch is None or key not in epoch.wanted or key in epoch.snapshots:
        run.totals.unfit += epoch is None
        return
    epoch.snapshots[key] = report
    for hotkey in sorted(epoch.wanted[key]):
        run.send(hotkey, _ready(member.hotkey, report))


def take_verdict(run: RunState, member: Member, report: Verdict) -> None:
    """Record a verdict of a validator that has revealed its link; at most `MAX_VERDICTS` about a miner."""
    epoch = _auditable(run, report.epoch)
    key = (member.hotkey, report.miner, report.audit.value, report.seq)
    if epoch is None or member.hotkey not in epoch.links or report.miner not in epoch.stages:
        run.totals.unfit += 1
        return
    own = sum(k[0] == member.hotkey and k[1] == report.miner for k in epoch.verdicts)
    if key not in epoch.verdicts and own < MAX_VERDICTS:
        epoch.verdicts[key] = report
        run.audits.verdicts.append((member.hotkey, report))
        run.audits.outcomes[report.outcome] += 1


def take_done(run: RunState, member: Member, report: AuditsDone) -> None:
    """Note that a validator has filed all its verdicts of an epoch."""
    epoch = _auditable(run, report.epoch)
    if epoch is not None and member.hotkey in epoch.links:
        epoch.done.add(member.hotkey)


def take_heldout(run: RunState, report: Heldout) -> None:
    """Keep the first held-out loss of each base."""
    if report.epoch > run.epoch + 1:
        run.totals.unfit += 1
        return
    run.audits.heldout.setdefault(report.epoch, (report.loss, report.before_merge))


def take_weights(run: RunState, member: Member, report: WeightsSet) -> None:
    """Keep the weights that a validator reports, for the status alone: the chain is what counts."""
    run.audits.weights[member.hotkey] = dict(report.weights)
    run.audits.compute_share[member.hotkey] = report.compute_share


def close_audits(run: RunState) -> None:
    """End the audits of epochs whose validators are done, or have had their time.

    Never before a later base of every stage is stored: until then what the epoch left behind is
    the only way to make it.
    """
    for number, epoch in run.epochs.items():
        under_way = number == run.epoch and run.phase is not Phase.FINISHED
        if epoch.seal is None or epoch.audits_closed or under_way:
            continue
        if run.newest_base <= number:
            continue
        waiting = [v for v in run.validators() if v.hotkey not in epoch.done]
        over = run.now > epoch.sealed_at + run.spec.audit.deadline_s
        unwatched = not run.validators() and (number < run.epoch or run.phase is Phase.FINISHED)
        if over or unwatched or (run.validators() and not waiting):
            _close(run, number, epoch)


def _close(run: RunState, number: int, epoch: EpochState) -> None:
    epoch.audits_closed = True
    run.audits.closed_epochs.append(number)
    run.outbox.deletions += epoch_prefixes(run.spec.id, number)
    for member in run.members.values():
        if not member.left:
            run.send(member.hotkey, AuditsClosed(epoch=number))
    # The journal keeps everything; memory keeps what can still be asked for.
    epoch.steps, epoch.reroutes, epoch.merges = [], [], []
    epoch.receipts.clear()
    epoch.verdicts.clear()
    for stage in range(run.stages):
        run.bases.stored.pop((number, stage), None)
        run.bases.digests.pop((number, stage), None)
        run.bases.assigned.pop((number, stage), None)
    run.dirty = True


def repeat_requests(run: RunState, member: Member) -> None:
    """A node that started again is told once more what is still wanted from it."""
    for number, epoch in run.epochs.items():
        if epoch.audits_closed:
            continue
        for miner, version in epoch.wanted:
            if miner == member.hotkey and (miner, version) not in epoch.snapshots:
                run.send(miner, AuditRequest(epoch=number, version=version))
        for merge in epoch.merges:
            for part in merge.parts:
                if (
                    part.agreed is None
                    and member.hotkey in part.mergers
                    and member.hotkey not in part.results
                ):
                    run.send(member.hotkey, part.assign)


def epoch_record(run: RunState, number: int) -> EpochRecord | None:
    """The public record of a sealed epoch; None before the seal and after its audits are closed."""
    epoch = _auditable(run, number)
    if epoch is None or epoch.seal is None:
        return None
    miners = []
    for hotkey in sorted(epoch.stages):
        count = len(epoch.receipts.get(hotkey, ()))
        first = epoch.first_receipt.get(hotkey, 1)
        miners.append(
            MinerRecord(
                hotkey=hotkey,
                stage=epoch.stages[hotkey],
                joined=epoch.joined[hotkey],
                first_receipt=first,
                last_receipt=first + count - 1,
                withdrawn=epoch.withdrawn.get(hotkey, 0),
            )
        )
    counted = [
        CountedList(step=step.plan.step, miner=hotkey, counted=tuple(order))
        for step in epoch.steps
        for hotkey, order in sorted(step.order.items())
    ]
    deltas = [
        DeltaRecord(miner=c.hotkey, stage=stage, tokens=c.tokens, parts=merge.deltas[c.hotkey])
        for stage, merge in enumerate(epoch.merges)
        for c in (merge.parts[0].assign.contributions if merge.parts else ())
    ]
    return EpochRecord(
        epoch=number,
        seal=epoch.seal,
        miners=tuple(miners),
        plans=tuple(step.plan for step in epoch.steps),
        reroutes=tuple(epoch.reroutes),
        counted=tuple(counted),
        bases=tuple(
            base
            for e in (number, number + 1)
            for s in range(run.stages)
            if (base := run.bases.stored.get((e, s))) is not None
        ),
        deltas=tuple(deltas),
        merge_assigns=tuple(part.assign for merge in epoch.merges for part in merge.parts),
        merges=tuple(merge.ready for merge in epoch.merges if merge.ready is not None),
    )
