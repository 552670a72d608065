"""Revealed links and verdicts. The coordinator records audits; it judges nothing itself."""

from __future__ import annotations

from iota.protocol.events import Accusation, AuditsClosed
from iota.protocol.member_records import PostedWeight, PostedWeights
from iota.protocol.messages import (
    CHARGING,
    AuditsDone,
    Reveal,
    Verdict,
    WeightsSet,
)
from orchestrator.coordinator import evidence, sealing
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState
from orchestrator.coordinator.verdict_log import PublicVerdicts

MAX_VERDICTS = 64
"""Verdicts of one validator about one miner and epoch: more than any draw demands."""
MAX_ACCUSATIONS = 64
"""Verdicts of one validator and epoch that the others are told of: more than they examine."""
WEIGHTS_PER_BLOCK = 32
"""A report of more weights than that has more blocks between it and the one before: 4,096 weights, which are
0.25 MB in the journal, may come every 129 blocks, where a tempo of Bittensor has 360."""
MAX_AHEAD = 10
"""Blocks by which weights may be newer than the newest known block: the head is read now and then."""


def is_new_of(run: RunState, member: Member, report: Reveal | Verdict | AuditsDone) -> bool:
    """Whether a report on an epoch's audits would change anything: nobody can file one for ever."""
    epoch, me = run.auditable(report.epoch), member.hotkey
    if epoch is None:
        return False
    match report:
        case Reveal():
            return me not in epoch.links
        case AuditsDone():
            owed = len(epoch.accusations) - epoch.accused[me]
            return me in epoch.links and me not in epoch.done and report.accusations >= owed
    if me not in epoch.links or report.miner not in epoch.stages:
        return False
    filed = epoch.filed.get((me, report.miner), ())
    return len(filed) < MAX_VERDICTS and _task(report) not in filed


def _task(report: Verdict) -> tuple[str, int]:
    return report.audit.value, report.seq


def take_reveal(run: RunState, member: Member, report: Reveal) -> None:
    """Record a validator's link for a sealed epoch; only the first counts."""
    epoch = run.auditable(report.epoch)
    if epoch is not None and is_new_of(run, member, report):
        epoch.links[member.hotkey] = report.link
        member.history.reveal(report.epoch)
        for accusation in epoch.accusations:
            run.send(member.hotkey, accusation)


def take_verdict(run: RunState, member: Member, report: Verdict) -> None:
    """Record a verdict of a validator that has revealed its link, if it has fewer than `MAX_VERDICTS`."""
    epoch = run.auditable(report.epoch)
    if epoch is None or not is_new_of(run, member, report):
        run.totals.unfit += 1
        return
    epoch.filed[member.hotkey, report.miner].add(_task(report))
    epoch.verdicts.append(member.hotkey, report)
    if report.outcome in CHARGING:
        run.owners.charge(run.members[report.miner], member.hotkey, report)
    if report.accuses and epoch.accused[member.hotkey] < MAX_ACCUSATIONS:
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
    epoch = run.auditable(report.epoch)
    if epoch is not None and is_new_of(run, member, report):
        epoch.done.add(member.hotkey)
        if (judged := member.history.judged_of(report.epoch)) is not None:
            judged.done = True
    run.dirty = True


def is_new_weights(run: RunState, member: Member, report: WeightsSet) -> bool:
    """Whether it tells of a block that the chain may have, and that is newer than that of the last report.

    The more weights there are, the more blocks must be between the two.
    """
    last = member.history.posted
    least = 0 if last is None else last.block + 1 + len(report.weights) // WEIGHTS_PER_BLOCK
    return least <= report.block <= run.head.block + MAX_AHEAD


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
        under_way = number >= run.anchor and run.phase is not Phase.FINISHED
        if epoch.seal is None or epoch.audits_closed or under_way or run.newest_base <= number:
            continue
        over = run.now > epoch.sealed_at + run.spec.audit.deadline_s
        if over or not awaited(run, epoch):
            _close(run, number, epoch)


def awaited(run: RunState, epoch: EpochState) -> list[str]:
    """The live validators that have not filed all verdicts of a sealed epoch which they were told of."""
    return [v.hotkey for v in run.validators() if v.hotkey in epoch.told - epoch.done]


def _close(run: RunState, number: int, epoch: EpochState) -> None:
    epoch.audits_closed = True
    evidence.close(run, number)
    run.contested = {h: part for h, part in run.contested.items() if part.assign.epoch != number}
    run.audits.closed_epochs.append(number)
    run.audits.filed[number] = PublicVerdicts(number, True, epoch.links, epoch.verdicts)
    run.audits.filed.pop(number - run.spec.audit.window, None)
    closed = set(run.audits.closed_epochs)
    run.outbox.deletions += sealing.deleted_prefixes(run.spec, number, closed)
    run.outbox.plans = [plan for plan in run.outbox.plans if plan.epoch != number]
    run.send_all(AuditsClosed(epoch=number))
    sealing.keep(run, number, epoch)
    # The journal has the rest. Of the last epoch, the status still tells the number of steps.
    run.epochs[number] = EpochState(number, closed_steps=epoch.closed_steps, audits_closed=True)
    if number != run.epoch:
        del run.epochs[number]
    for freed in sealing.freed(run.spec, number, closed):
        run.bases.forget(freed, run.stages, stored=not run.spec.keeps_base(freed))
    run.dirty = True


def public_verdicts(run: RunState, number: int) -> PublicVerdicts | None:
    """The verdicts of an epoch whose audits are open, or were closed within the window; else None."""
    epoch = run.auditable(number)
    if epoch is not None:
        return PublicVerdicts(number, False, epoch.links, epoch.verdicts)
    return run.audits.filed.get(number)


def repeat_requests(run: RunState, member: Member) -> None:
    """Send a restarted node the requests that it has not answered: evidence and parts to merge."""
    evidence.repeat(run, member)
    for stage, part in sorted(member.merging) if run.merging is not None else ():
        owed = run.merging_epoch().merges[stage].parts[part]
        if owed.agreed is None and member.hotkey not in owed.results:
            run.send(member.hotkey, owed.assign)
