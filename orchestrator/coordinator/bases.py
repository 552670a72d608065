"""Bases: the replicas of a stage agree on a digest, and one of them stores the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from iota.protocol.events import BaseAssign
from iota.protocol.frames import StoredObject
from iota.protocol.messages import BaseStored, Ready
from iota.protocol.records import BaseRecord
from orchestrator.coordinator.entries import BaseMade
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Claims, Phase, RunState, StageEpoch


@dataclass(frozen=True)
class BaseInputs:
    """What gives a base: that of the epoch before, and the merge of that epoch."""

    epoch: int
    stage: int
    before: BaseRecord | None
    """None where it follows from the seed."""
    merged: tuple[StoredObject, ...] = ()
    """The merged parts; empty where the base stays as it is, and for the base of epoch 0."""


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
    run.bases.claims.setdefault(at, Claims()).take(member.hotkey, member.owner, report.digest)
    if at not in run.bases.digests and at not in run.bases.disputed:
        run.bases.disputed.begin(at, run.now)
    run.changed.claims[at] = None
    run.dirty = True


def is_new_claim(run: RunState, member: Member, report: Ready) -> bool:
    """Whether a replica may hold this base by now, and has not claimed it with this digest."""
    following = (
        run.phase is Phase.MERGING
        and report.epoch == run.epoch + 1
        and run.current.merges[member.stage].ready is not None
    )
    if report.epoch <= member.ready_epoch or not (following or report.epoch == run.epoch):
        return False
    at = (report.epoch, member.stage)
    if member.misloaded >= report.epoch and run.bases.digests.get(at) not in (None, report.digest):
        return False  # it was told already that this is another base
    claims = run.bases.claims.get(at)
    return claims is None or claims.digests.get(member.hotkey) != report.digest


def settle_bases(run: RunState) -> None:
    """Decide the digest of each claimed base, and accept the replicas that hold it.

    Equal claims of two owners decide, or those of one where no other owner has a replica of the stage, or
    says nothing until the deadline. Where owners claim different digests until then, the orchestrator makes
    the base (`disputed_bases`): the number of workers decides nothing. So it does with a base 0 on which no
    two owners agree: anyone can make it of the seed, and no merge before it would show who chose it.
    """
    changed, run.changed.claims = run.changed.claims, {}
    late = run.bases.disputed.overdue(run.now, run.deadlines.merge.seconds)
    for at in sorted({*changed, *late}):
        claims = run.bases.claims.get(at)
        if claims is None:
            continue
        if at not in run.bases.digests:
            undoubted = at[0] > 0 and at in late and len(claims.votes) == 1
            if not undoubted and not _decides(run, at, claims):
                if at in late or (at[0] == 0 and _has_all(run, at, claims)):
                    run.bases.unmade[at] = None
                continue
            _decide(run, at, max(claims.votes, key=lambda digest: len(claims.votes[digest])))
        _answer(run, at)


def disputed_bases(run: RunState) -> list[BaseInputs]:
    """The bases that the orchestrator is to make itself, as far as what they are made of is stored."""
    found = [_inputs(run, *at) for at in run.bases.unmade]
    return [inputs for inputs in found if inputs is not None]


def take_made(run: RunState, entry: BaseMade) -> None:
    """Settle a disputed base by the orchestrator's own."""
    at = (entry.epoch, entry.stage)
    if at not in run.bases.disputed:
        run.totals.unfit += 1
        return
    run.bases.made[at] = run.now
    _decide(run, at, entry.digest)
    _answer(run, at)
    run.dirty = True


def stands_alone(run: RunState, at: StageEpoch) -> bool:
    """Whether the orchestrator's own base counts though no replica holds it: at the deadline of the merge.

    The epoch before can then be sealed and audited. The next one waits for a replica that makes the base.
    """
    made = run.bases.made.get(at)
    return made is not None and run.now > made + run.deadlines.merge.seconds


def _inputs(run: RunState, epoch: int, stage: int) -> BaseInputs | None:
    """What the base is made of; None while that is not stored."""
    if epoch == 0:
        return BaseInputs(0, stage, None)
    past = run.epochs.get(epoch - 1)
    ready = None if past is None else past.merges[stage].ready
    if ready is None:
        return None
    if epoch == 1 and run.spec.init is None:
        return BaseInputs(epoch, stage, None, ready.parts)
    before = run.bases.stored.get((epoch - 1, stage))
    return None if before is None else BaseInputs(epoch, stage, before, ready.parts)


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


def _decides(run: RunState, at: StageEpoch, claims: Claims) -> bool:
    """Whether two owners' claims are equal, or no replica of a second owner can make one, after epoch 0."""
    if any(len(owners) > 1 for owners in claims.votes.values()):
        return True
    return at[0] > 0 and len(claims.votes) == 1 and not _others(run, at, claims)


def _has_all(run: RunState, at: StageEpoch, claims: Claims) -> bool:
    """Whether all planned replicas of the stage claim a base, and no other is there that may."""
    return len(claims.digests) >= run.spec.layout.replicas and not _others(run, at, claims)


def _others(run: RunState, at: StageEpoch, claims: Claims) -> bool:
    """Whether a live replica can claim the base whose owner has not claimed it."""
    epoch, stage = at
    claiming = {owner for owners in claims.votes.values() for owner in owners}
    return any(m.live and m.ready_epoch == epoch - 1 and m.owner not in claiming for m in run.miners(stage))


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
    member.joined = None
    run.look_at(member)
    member.forget_events()  # a restart from disk needs the events after this base
    if run.phase is Phase.MERGING and epoch == run.epoch:
        ready = run.current.merges[member.stage].ready
        if ready is not None:
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


def reassign_bases(run: RunState) -> None:
    """Ask another replica to store a base that the first one did not store in time, or is gone."""
    bases, gone = run.bases, run.changed.keepers
    run.changed.keepers = False
    late = bases.unstored.overdue(run.now, run.deadlines.merge.seconds)
    for at in list(bases.unstored) if gone else late:
        if at[0] <= run.newest_base:
            bases.unstored.end(at)
        elif at in late or not run.members[bases.keepers[at]].live:
            assign_base(run, *at)
            run.changed.keepers |= not run.members[bases.keepers[at]].live  # nobody else holds it now


def take_base(run: RunState, member: Member, report: BaseStored) -> None:
    """Record that a replica that was asked to store a base has done so."""
    if is_wanted_base(run, member, report):
        base = BaseRecord(
            epoch=report.epoch,
            stage=member.stage,
            digest=report.digest,
            parts=report.parts,
            makers=run.bases.makers.get((report.epoch, member.stage), ()),
        )
        run.bases.store(base, run.stages)
        run.dirty = True
    else:
        run.totals.unfit += 1


def is_wanted_base(run: RunState, member: Member, report: BaseStored) -> bool:
    """Whether this replica was asked to store this base, and has not said before that it did."""
    at, bases = (report.epoch, member.stage), run.bases
    asked = member.hotkey in bases.asked.get(at, ()) and bases.digests.get(at) == report.digest
    return asked and at not in bases.stored
