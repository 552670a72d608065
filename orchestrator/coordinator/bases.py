"""Bases: the replicas of a stage agree on a digest, and one of them stores the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from iota.protocol.events import BaseAssign, MergeReady
from iota.protocol.frames import StoredObject
from iota.protocol.messages import BaseStored, Ready
from iota.protocol.records import BaseRecord
from orchestrator.coordinator import patience
from orchestrator.coordinator.base_table import Claims, StageEpoch
from orchestrator.coordinator.entries import BaseMade
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merging import transfer_limit_s
from orchestrator.coordinator.state import Phase, RunState
from orchestrator.coordinator.waiting import Waiting

MAX_KEEPERS = 2
"""Replicas that are asked to store a base and do not, before the orchestrator stores it."""


@dataclass(frozen=True)
class BaseInputs:
    """What gives a base: that of the epoch before, and the merge of that epoch."""

    epoch: int
    stage: int
    before: BaseRecord | None
    """None where it follows from the seed."""
    merged: tuple[StoredObject, ...] = ()
    """The merged parts; empty where the base stays as it is, and for the base of epoch 0."""
    store: bool = False
    """Whether it is to be stored too."""


def take_start(run: RunState, start: Sequence[BaseRecord]) -> None:
    """Take the stored base 0 of a run that starts from existing weights, whose digests the spec pins.

    Raises:
        ValueError: `start` is not the base that the spec names.
    """
    pinned = () if run.spec.init is None else run.spec.init.digests
    if tuple((base.epoch, base.stage, base.digest) for base in start) != tuple(
        (0, stage, digest) for stage, digest in enumerate(pinned)
    ):
        raise ValueError("the stored base 0 is not the one whose digests the spec has in init.digests")
    for base in start:
        run.bases.store(base, run.stages)
        run.bases.digests[0, base.stage] = base.digest


def take_ready(run: RunState, member: Member, report: Ready) -> None:
    """Record a replica's claim to hold a base; `settle_bases` decides whether its digest is right."""
    at = (report.epoch, member.stage)
    if not is_new_claim(run, member, report):
        return
    claims = run.bases.claims.setdefault(at, Claims())
    claims.digests[member.hotkey] = report.digest
    if _has_voice(run, member, at[0]):
        works = run.epochs[at[0] - 1].counted[member.hotkey] > 0
        claims.vote(member.owner, report.digest, works)
    if at not in run.bases.digests and at not in run.bases.disputed:
        run.bases.disputed.begin(at, run.now)
    run.changed.claims[at] = None
    run.dirty = True


def is_new_claim(run: RunState, member: Member, report: Ready) -> bool:
    """Whether a replica may hold this base by now, and has not claimed it since the last answer."""
    at = (report.epoch, member.stage)
    if report.epoch <= member.ready_epoch or report.epoch not in range(run.anchor, run.epoch + 2):
        return False
    ended = run.phase is Phase.FINISHED
    if report.epoch > run.anchor and (ended or _merge_into(run, *at) is None):
        return False
    if member.misloaded >= report.epoch and run.bases.digests.get(at) not in (None, report.digest):
        return False  # it was told already that this is another base
    claims = run.bases.claims.get(at)
    return claims is None or member.hotkey not in claims.digests


def settle_bases(run: RunState) -> None:
    """Decide the digest of each claimed base, and accept the replicas that hold it.

    Claims decide where every owner with a voice claims the same, or two with work do and the others say
    nothing until the deadline, which is short where all of them were slow of late: who is first decides
    nothing, and the run waits for the others in any case. Else the orchestrator makes the base
    (`disputed_bases`), however many workers claim another. So it always does with base 0, which has no work
    before it.
    """
    changed, run.changed.claims = run.changed.claims, {}
    late = [] if run.store_away_since is not None else _overdue(run, run.bases.disputed) + _slow_alone(run)
    for at in sorted({*changed, *late}):
        claims = run.bases.claims.get(at)
        if claims is None:
            continue
        if at not in run.bases.digests:
            awaited = _is_awaited(run, at, claims)
            if awaited and at not in late and len(claims.votes) < 2:
                continue
            agreed = _agreed(claims, awaited)
            if agreed is None:
                run.bases.unmade[at] = None
                continue
            _decide(run, at, agreed)
        _answer(run, at)


def disputed_bases(run: RunState) -> list[BaseInputs]:
    """The bases that the orchestrator is to make itself, as far as what they are made of is stored.

    First those that the run waits for, then those that it is to store.
    """
    made = [_inputs(run, *at) for at in run.bases.unmade]
    kept = [_inputs(run, *at) for at in run.bases.unkept]
    return [base for base in made if base] + [replace(base, store=True) for base in kept if base]


def take_made(run: RunState, entry: BaseMade) -> None:
    """Settle a disputed base by the orchestrator's own, or record that it stored one itself."""
    at = (entry.epoch, entry.stage)
    if at in run.bases.unkept and entry.parts:
        _take_kept(run, at, entry)
        return
    if at not in run.bases.disputed:
        run.totals.unfit += 1
        return
    run.bases.made[at] = run.now
    for hotkey, digest in sorted(run.bases.claims[at].digests.items()) if at[0] > 0 else ():
        if digest != entry.digest:
            _note_false(run, run.members[hotkey], at[0])
    _decide(run, at, entry.digest)
    _answer(run, at)
    run.dirty = True


def _take_kept(run: RunState, at: StageEpoch, entry: BaseMade) -> None:
    """Record a base that the orchestrator stored. Its digest counts, also where replicas agreed on another.

    Nobody could ever load that one, since nobody stored it; those who hold it fail the audits of their work.
    """
    if entry.digest != run.bases.digests[at]:
        told = f"epoch {at[0]}: stage {at[1]} agreed on a false base and did not store it"
        run.incidents.named.append(told)
        for hotkey in run.bases.makers.get(at, ()):
            _note_false(run, run.members[hotkey], at[0])
        run.bases.digests[at], run.bases.makers[at] = entry.digest, ()
    _store(run, at, entry.parts)


def _store(run: RunState, at: StageEpoch, parts: tuple[StoredObject, ...]) -> None:
    """A base whose digest is decided is stored in these parts."""
    (epoch, stage), makers = at, run.bases.makers.get(at, ())
    base = BaseRecord(epoch=epoch, stage=stage, digest=run.bases.digests[at], parts=parts, makers=makers)
    run.bases.store(base, run.stages)
    run.dirty = True


def _note_false(run: RunState, member: Member, epoch: int) -> None:
    """A replica claimed another base than the orchestrator made: its owner decides none any more.

    So it can delay the run by this once. Base 0 has no votes, and a device of another kind may miss it.
    """
    run.bases.false_owners.add(member.owner)
    run.changed.claims |= dict.fromkeys(run.bases.disputed)  # those that wait for this owner's word
    unproven = run.current.unproven
    unproven[member.hotkey] = unproven.get(member.hotkey, 0) + 1
    told = f"it claimed a false base of epoch {epoch}: its owner has no say in bases any more in this run"
    member.history.happened(run.now, run.epoch, told)


def stands_alone(run: RunState, at: StageEpoch) -> bool:
    """Whether the orchestrator's own base counts though no replica holds it: at the deadline of the merge.

    The epoch before can then be sealed and audited. The next one waits for a replica that makes the base.
    """
    made = run.bases.made.get(at)
    return made is not None and run.now > made + transfer_limit_s(run, at[1])


def _overdue(run: RunState, waiting: Waiting[StageEpoch], vectors: int = 1) -> list[StageEpoch]:
    """What has waited for longer than so many vectors of its stage take."""
    found = waiting.overdue(run.now, run.deadlines.merge.seconds)
    return [at for at in found if run.now > waiting.since(at) + transfer_limit_s(run, at[1], vectors)]


def _slow_alone(run: RunState) -> list[StageEpoch]:
    """Claimed bases on which nobody is silent but owners who were slow of late, after a short time."""
    disputed = run.bases.disputed if run.slow_givers else ()
    return [
        at
        for at in disputed
        if run.now > run.bases.disputed.since(at) + patience.SHORT[0]
        and not _is_awaited(run, at, run.bases.claims[at], slow=False)
    ]


def are_awaited(run: RunState, stage: int) -> bool:
    """Whether the merge under way waits for replicas of a stage that do not hold the base that it gives.

    That is until the deadline, and shortly for who was slow of late. Who took part in the epoch and is late
    while half of the stage is not is `silent`.
    """
    epoch = run.merging_epoch()
    number = epoch.epoch
    if not run.roster.holding(stage, number):
        return False
    missing = (m for m in run.roster.stages[stage] if m.live and m.ready_epoch == number)
    if run.now > epoch.merged_at + transfer_limit_s(run, stage):
        if run.roster.holding(stage, number) <= run.roster.holding(stage, number + 1):
            epoch.silent += [member for member in missing if member.hotkey in epoch.lives]
        return False
    soon = run.now <= epoch.merged_at + patience.SHORT[0]
    return soon or any(not patience.is_slow(run, member) for member in missing)


def _inputs(run: RunState, epoch: int, stage: int) -> BaseInputs | None:
    """What the base is made of; None while that is not stored."""
    if epoch == 0:
        return BaseInputs(0, stage, None)
    ready = _merge_into(run, epoch, stage)
    if ready is None:
        return None
    if epoch == 1 and run.spec.init is None:
        return BaseInputs(epoch, stage, None, ready.parts)
    before = run.bases.stored.get((epoch - 1, stage))
    return None if before is None else BaseInputs(epoch, stage, before, ready.parts)


def _merge_into(run: RunState, epoch: int, stage: int) -> MergeReady | None:
    """The merge that gives a stage its base of `epoch`; None while that is not ready, or long after."""
    past = run.epochs.get(epoch - 1)
    return past.merges[stage].ready if past is not None and past.merges else None


def _decide(run: RunState, at: StageEpoch, digest: str) -> None:
    """The base has this digest from now on."""
    run.bases.digests[at] = digest
    run.bases.makers[at] = tuple(sorted(h for h, d in run.bases.claims[at].digests.items() if d == digest))
    run.bases.disputed.end(at)
    run.bases.unmade.pop(at, None)


def _answer(run: RunState, at: StageEpoch) -> None:
    """Accept the replicas that claim the base with its digest, and tell the others."""
    for hotkey, digest in sorted(run.bases.claims.pop(at).digests.items()):
        _accept(run, run.members[hotkey], at[0], digest == run.bases.digests[at])


def _has_voice(run: RunState, member: Member, base: int) -> bool:
    """Whether what the member says of a base counts: it was admitted to the epoch that made it.

    It holds the base before. Its owner may not have claimed a false one. To decide, it needs work that counts
    as well.
    """
    past = run.epochs.get(base - 1)
    admitted = past is not None and member.hotkey in past.lives and member.ready_epoch == base - 1
    admitted = admitted and (run.spec.overlaps or member.joined is not None)
    return admitted and member.owner not in run.bases.false_owners


def _agreed(claims: Claims, awaited: bool) -> str | None:
    """The only digest that is claimed, where two owners with work do, or one and nobody is `awaited`."""
    if len(claims.votes) != 1:
        return None
    ((digest, owners),) = claims.votes.items()
    return digest if sum(owners.values()) >= (2 if awaited else 1) else None


def _is_awaited(run: RunState, at: StageEpoch, claims: Claims, *, slow: bool = True) -> bool:
    """Whether a live replica has a voice whose owner has not claimed the base, and may have been `slow`."""
    claiming = {owner for owners in claims.votes.values() for owner in owners}
    live = (m for m in run.miners(at[1]) if m.live and (slow or not patience.is_slow(run, m)))
    return any(_has_voice(run, m, at[0]) and m.owner not in claiming for m in live)


def _accept(run: RunState, member: Member, epoch: int, agrees: bool) -> None:
    """Mark the replica as ready for `epoch`, or tell it to load the base where its digest is wrong."""
    if epoch <= member.ready_epoch:
        return
    if not agrees:
        if member.misloaded < epoch:  # once an epoch: `offer_bases` then sends it the base of its stage
            member.misloaded, member.told_base = epoch, -1
            run.incidents.named.append(f"{member.hotkey} holds another base of epoch {epoch} than its stage")
            run.look_at(member)
        run.dirty = True
        return
    run.roster.set_ready(member, epoch)
    if not run.spec.overlaps:
        member.joined = None
    run.look_at(member)
    if not run.spec.overlaps or not any(member.hotkey in e.lives for e in (run.current, *run.awaiting())):
        member.forget_events()  # a restart from disk needs the events after this base
    ready = _merge_into(run, epoch + 1, member.stage)
    if ready is not None and run.phase is not Phase.FINISHED:
        run.send(member.hotkey, ready)  # it loaded this base after the merge was announced
    if (epoch, member.stage) not in run.bases.keepers and (epoch, member.stage) not in run.bases.stored:
        assign_base(run, epoch, member.stage)


def assign_base(run: RunState, epoch: int, stage: int) -> None:
    """Ask a live replica that holds the base to store it; the next one in turn, if there are several."""
    before = run.bases.keepers.get((epoch, stage))
    holders = [m for m in run.miners(stage) if m.live and m.ready_epoch >= epoch]
    if holders:
        last = -1 if before is None else run.members[before].order
        chosen = min(
            holders, key=lambda m: (m.hotkey == before, m.ready_epoch != epoch, m.order <= last, m.order)
        )
        run.bases.keepers[epoch, stage] = chosen.hotkey
        run.bases.asked.setdefault((epoch, stage), set()).add(chosen.hotkey)
        run.bases.unstored.begin((epoch, stage), run.now)
        run.send(chosen.hotkey, BaseAssign(epoch=epoch))


def ask_again(run: RunState) -> None:
    """Ask the keepers of bases that are not stored once more.

    A report of theirs that was not yet checked is lost with the orchestrator's process.
    """
    for epoch, stage in run.bases.unstored:
        run.send(run.bases.keepers[epoch, stage], BaseAssign(epoch=epoch))


def reassign_bases(run: RunState) -> None:
    """Ask another replica to store a base that the first one did not store in time, or is gone.

    After `MAX_KEEPERS`, or where no other is there, the orchestrator is to store it as well: without bases no
    audits are closed, and the run does not end. Base 0 follows from the seed, and nobody waits for it.
    """
    bases, gone = run.bases, run.changed.keepers
    run.changed.keepers = False
    late = _overdue(run, bases.unstored, vectors=2 if run.spec.outer.momentum else 1)
    for at in list(bases.unstored) if gone else late:
        if at[0] <= run.newest_base:
            bases.unstored.end(at)
        elif at in late or not run.members[bases.keepers[at]].live:
            keeper, asked = run.members[bases.keepers[at]], len(bases.asked[at])
            assign_base(run, *at)
            run.changed.keepers |= not run.members[bases.keepers[at]].live  # nobody else holds it now
            if at not in late or at in bases.unkept or at[0] == 0:
                continue
            keeper.history.happened(run.now, run.epoch, f"it did not store base {at[0]} in time")
            if asked >= MAX_KEEPERS or asked == len(bases.asked[at]):
                bases.unkept[at] = None
    for at in bases.made:
        if at[0] > 0 and at not in bases.keepers and at not in bases.stored and stands_alone(run, at):
            bases.unkept[at] = None


def take_base(run: RunState, member: Member, report: BaseStored) -> None:
    """Record that a replica that was asked to store a base has done so."""
    if is_wanted_base(run, member, report):
        _store(run, (report.epoch, member.stage), report.parts)
    else:
        run.totals.unfit += 1


def is_wanted_base(run: RunState, member: Member, report: BaseStored) -> bool:
    """Whether this replica was asked to store this base, and has not said before that it did."""
    at, bases = (report.epoch, member.stage), run.bases
    asked = member.hotkey in bases.asked.get(at, ()) and bases.digests.get(at) == report.digest
    return asked and at not in bases.stored
