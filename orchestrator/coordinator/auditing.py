"""Seals, revealed links, snapshots and verdicts. The coordinator records audits; it judges nothing itself."""

from __future__ import annotations

from iota.objects import epoch_prefixes
from iota.protocol.events import Accusation, AuditRequest, AuditsClosed, EpochClose, SnapshotReady
from iota.protocol.member_records import PostedWeight, PostedWeights
from iota.protocol.merkle import merkle_root
from iota.protocol.messages import (
    AuditsDone,
    Heldout,
    Outcome,
    Reveal,
    SnapshotStored,
    SnapshotWanted,
    Verdict,
    WeightsSet,
)
from iota.protocol.records import CountedList, DeltaRecord, EpochRecord, MinerRecord, PlanRecord
from orchestrator.coordinator.epoch_state import EpochState, counted_pairs
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState
from orchestrator.coordinator.verdict_log import PublicVerdicts

MAX_VERDICTS = 64
"""Verdicts of one validator about one miner and epoch: more than any draw demands."""
MAX_ACCUSATIONS = 64
"""Verdicts of one validator and epoch that the others are told of: more than they examine."""
_ACCUSING = (Outcome.FAIL, Outcome.UNDELIVERED)


def seal(run: RunState) -> None:
    """Seal the epoch once all contributions are fixed: later receipts do not belong to it.

    The seal commits to all receipts: it has the Merkle root over the roots of the miners' receipts, by
    hotkey. It names a later block, from which audits are drawn.
    """
    epoch = run.current
    if epoch.seal is not None or epoch.unfixed:
        return
    trees = [epoch.receipts[hotkey] for hotkey in sorted(epoch.receipts)]
    epoch.seal = EpochClose(
        epoch=run.epoch,
        root=merkle_root([tree.root for tree in trees]),
        receipts=sum(tree.count for tree in trees),
        block=run.head.block + run.spec.audit.seal_blocks,
    )
    epoch.sealed_at = run.now
    run.send_all(epoch.seal)


def _auditable(run: RunState, number: int) -> EpochState | None:
    """A sealed epoch whose audits are open, or None."""
    epoch = run.epochs.get(number)
    return epoch if epoch and epoch.seal is not None and not epoch.audits_closed else None


def is_new_of(
    run: RunState, member: Member, report: Reveal | SnapshotWanted | SnapshotStored | Verdict | AuditsDone
) -> bool:
    """Whether a report on an epoch's audits would change anything: nobody can file one for ever."""
    epoch, me = _auditable(run, report.epoch), member.hotkey
    if epoch is None:
        return False
    match report:
        case Reveal():
            return me not in epoch.links
        case SnapshotStored():
            wanted = report.version in epoch.wanted.get(me, ())
            return wanted and (me, report.version) not in epoch.snapshots
        case AuditsDone():
            owed = len(epoch.accusations) - epoch.accused[me]
            return me in epoch.links and me not in epoch.done and report.accusations >= owed
    if me not in epoch.links or report.miner not in epoch.stages:
        return False
    if isinstance(report, SnapshotWanted):
        return me not in epoch.wanted.get(report.miner, {}).get(report.version, ())
    filed = epoch.filed.get((me, report.miner), ())
    return len(filed) < MAX_VERDICTS and _task(report) not in filed


def _task(report: Verdict) -> tuple[str, int, str]:
    return report.audit.value, report.seq, report.subject or report.miner


def take_reveal(run: RunState, member: Member, report: Reveal) -> None:
    """Record a validator's link for a sealed epoch; only the first counts."""
    epoch = _auditable(run, report.epoch)
    if epoch is not None and is_new_of(run, member, report):
        epoch.links[member.hotkey] = report.link
        member.history.reveal(report.epoch)
        for accusation in epoch.accusations:
            run.send(member.hotkey, accusation)


def take_wanted(run: RunState, member: Member, report: SnapshotWanted) -> None:
    """Ask a miner to store a snapshot, or tell the validator where a stored one is.

    Only validators that have revealed their link for the epoch may ask.
    """
    epoch = _auditable(run, report.epoch)
    if epoch is None or not is_new_of(run, member, report):
        run.totals.unfit += 1
        return
    stored = epoch.snapshots.get((report.miner, report.version))
    waiting = epoch.wanted.setdefault(report.miner, {}).setdefault(report.version, set())
    if stored is not None:
        run.send(member.hotkey, _ready(report.miner, stored))
    elif not waiting:
        run.send(report.miner, AuditRequest(epoch=report.epoch, version=report.version))
    waiting.add(member.hotkey)


def _ready(miner: str, report: SnapshotStored) -> SnapshotReady:
    return SnapshotReady(epoch=report.epoch, miner=miner, version=report.version, stored=report.stored)


def take_snapshot(run: RunState, member: Member, report: SnapshotStored) -> None:
    """Tell the validators that wait for a snapshot that it is stored."""
    epoch = _auditable(run, report.epoch)
    if epoch is None or not is_new_of(run, member, report):
        run.totals.unfit += epoch is None
        return
    epoch.snapshots[member.hotkey, report.version] = report
    for hotkey in sorted(epoch.wanted[member.hotkey][report.version]):
        run.send(hotkey, _ready(member.hotkey, report))


def take_verdict(run: RunState, member: Member, report: Verdict) -> None:
    """Record a verdict of a validator that has revealed its link, if it has fewer than `MAX_VERDICTS`."""
    epoch = _auditable(run, report.epoch)
    if epoch is None or not is_new_of(run, member, report):
        run.totals.unfit += 1
        return
    epoch.filed[member.hotkey, report.miner].add(_task(report))
    epoch.verdicts.append(member.hotkey, report)
    if report.outcome in _ACCUSING:
        run.owners.charge(run.members[report.miner], member.hotkey, report)
        if epoch.accused[member.hotkey] < MAX_ACCUSATIONS:
            _accuse(run, epoch, Accusation(validator=member.hotkey, verdict=report))
    run.audits.verdicts.append((member.hotkey, report))
    run.audits.outcomes[report.outcome] += 1
    run.members[report.miner].history.judge(member.hotkey, report)
    member.history.file(report)


def _accuse(run: RunState, epoch: EpochState, accusation: Accusation) -> None:
    """Have the other validators of the epoch examine a verdict before its audits are closed."""
    epoch.accusations.append(accusation)
    epoch.accused[accusation.validator] += 1
    for hotkey in epoch.links:
        if hotkey != accusation.validator:
            epoch.done.discard(hotkey)
            run.send(hotkey, accusation)


def take_done(run: RunState, member: Member, report: AuditsDone) -> None:
    """Record that a validator has filed all its verdicts of an epoch, so that its audits may close."""
    epoch = _auditable(run, report.epoch)
    if epoch is not None and is_new_of(run, member, report):
        epoch.done.add(member.hotkey)
        if (judged := member.history.judged_of(report.epoch)) is not None:
            judged.done = True
    run.dirty = True


def take_heldout(run: RunState, member: Member, report: Heldout) -> None:
    """Record the held-out loss of a base; the first report of each base counts."""
    if not is_new_loss(run, member, report):
        run.totals.unfit += 1
        return
    run.audits.heldout.setdefault(report.epoch, report)
    member.history.measure(report.epoch, report.loss)


def is_new_loss(run: RunState, member: Member, report: Heldout) -> bool:
    """Whether it is the first of a base, or this validator's first of an epoch that it audits."""
    judged = member.history.judged_of(report.epoch - 1)
    first = report.epoch not in run.audits.heldout or (judged is not None and judged.heldout is None)
    return first and report.epoch <= run.epoch + 1


def is_new_weights(run: RunState, member: Member, report: WeightsSet) -> bool:
    """Whether it tells other weights than the validator's last report, or of another block."""
    last = member.history.posted
    said = None if last is None else (last.block, last.compute_share, run.audits.weights[member.hotkey])
    return said != (report.block, report.compute_share, report.weights)


def take_weights(run: RunState, member: Member, report: WeightsSet) -> None:
    """Record a validator's reported weights for the status. Only the weights on the chain have an effect."""
    left_out = run.audits.weights.get(member.hotkey, {}).keys() - report.weights.keys()
    for hotkey, weight in {**dict.fromkeys(sorted(left_out), 0.0), **report.weights}.items():
        posted = PostedWeight(validator=member.hotkey, epoch=run.epoch, block=report.block, weight=weight)
        for paid in (hotkey, *run.owners.workers.get(hotkey, ())):
            if (miner := run.members.get(paid)) is not None:
                miner.history.weigh(posted)
    member.history.posted = PostedWeights(
        epoch=run.epoch,
        block=report.block,
        miners=len(report.weights),
        compute_share=report.compute_share,
    )
    run.audits.weights[member.hotkey] = dict(report.weights)
    run.audits.compute_share[member.hotkey] = report.compute_share


def close_audits(run: RunState) -> None:
    """Close the audits of past epochs whose validators are done, or whose deadline has passed.

    Not before every stage has stored a later base: until then a new replica needs the epoch's base and merge
    to compute the current one.
    """
    for number, epoch in list(run.epochs.items()):
        under_way = number == run.epoch and run.phase is not Phase.FINISHED
        if epoch.seal is None or epoch.audits_closed or under_way or run.newest_base <= number:
            continue
        over = run.now > epoch.sealed_at + run.spec.audit.deadline_s
        if over or all(v.hotkey in epoch.done for v in run.validators()):
            _close(run, number, epoch)


def _close(run: RunState, number: int, epoch: EpochState) -> None:
    epoch.audits_closed = True
    run.audits.closed_epochs.append(number)
    run.audits.published[number] = PublicVerdicts(number, True, epoch.links, epoch.verdicts)
    run.audits.published.pop(number - run.spec.audit.window, None)
    run.outbox.deletions += epoch_prefixes(run.spec.id, number)
    run.outbox.plans = [plan for plan in run.outbox.plans if plan.epoch != number]
    run.send_all(AuditsClosed(epoch=number))
    # The journal has the rest. Of the last epoch, the status still tells the number of steps.
    run.epochs[number] = EpochState(number, closed_steps=epoch.closed_steps, audits_closed=True)
    if number != run.epoch:
        del run.epochs[number]
    run.bases.forget(number, run.stages)
    run.dirty = True


def public_verdicts(run: RunState, number: int) -> PublicVerdicts | None:
    """The verdicts of an epoch whose audits are open, or were closed within the window; else None."""
    epoch = _auditable(run, number)
    if epoch is not None:
        return PublicVerdicts(number, False, epoch.links, epoch.verdicts)
    return run.audits.published.get(number)


def repeat_requests(run: RunState, member: Member) -> None:
    """Send a restarted node the requests that it has not answered: snapshots and parts to merge."""
    for number, epoch in run.epochs.items():
        for version in epoch.wanted.get(member.hotkey, ()):
            if (member.hotkey, version) not in epoch.snapshots:
                run.send(member.hotkey, AuditRequest(epoch=number, version=version))
    for stage, part in sorted(member.merging) if run.phase is Phase.MERGING else ():
        owed = run.current.merges[stage].parts[part]
        if owed.agreed is None and member.hotkey not in owed.results:
            run.send(member.hotkey, owed.assign)


def epoch_record(run: RunState, number: int) -> EpochRecord | None:
    """The public record of a sealed epoch; None before the seal and after its audits are closed."""
    epoch = _auditable(run, number)
    if epoch is None or epoch.seal is None:
        return None
    miners = []
    for hotkey in sorted(epoch.stages):
        count = epoch.receipts[hotkey].count if hotkey in epoch.receipts else 0
        first = epoch.first_receipt.get(hotkey, 1)
        miners.append(
            MinerRecord(
                hotkey=hotkey,
                owner=run.members[hotkey].owner,
                certificate=run.members[hotkey].certificate,
                stage=epoch.stages[hotkey],
                joined=epoch.joined[hotkey],
                first_receipt=first,
                last_receipt=first + count - 1,
                withdrawn=epoch.withdrawn.get(hotkey, 0),
            )
        )
    counted = [
        CountedList(step=step.number, miner=hotkey, counted=tuple(counted_pairs(order)))
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
        plans=tuple(PlanRecord(step=step.number, root=step.root) for step in epoch.steps),
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
