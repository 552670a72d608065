"""Bases: the digest that a stage's replicas agree on, and the replica that stores the base."""

from __future__ import annotations

from iota.protocol.events import BaseAssign
from iota.protocol.messages import BaseStored, Ready
from iota.protocol.records import BaseRecord
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState


def take_ready(run: RunState, member: Member, report: Ready) -> None:
    """Record a replica's claim of a base; the digest that its stage agrees on counts."""
    at = (report.epoch, member.stage)
    following = (
        run.phase is Phase.MERGING
        and report.epoch == run.epoch + 1
        and run.current.merges[member.stage].ready is not None
    )
    if report.epoch <= member.ready_epoch or not (following or report.epoch == run.epoch):
        return
    run.bases.claims.setdefault(at, {})[member.hotkey] = report.digest
    run.bases.claimed_since.setdefault(at, run.now)
    run.dirty = True


def settle_bases(run: RunState) -> None:
    """Agree on the digest of each claimed base, and let in who holds it.

    Two equal claims decide, or the only one where the stage has one replica; after the deadline the
    most frequent.
    """
    for at, claims in list(run.bases.claims.items()):
        epoch, stage = at
        if at not in run.bases.digests:
            digests = sorted(claims.values(), key=lambda d: (-_frequency(claims, d), d))
            expected = [m for m in run.miners(stage) if m.live and m.ready_epoch == epoch - 1]
            holders = len({m.hotkey for m in expected} | claims.keys())
            if epoch == 0:
                holders = max(holders, run.spec.layout.replicas)
            late = run.now > run.bases.claimed_since[at] + run.deadlines.merge.seconds
            if _frequency(claims, digests[0]) < min(2, holders) and not late:
                continue
            run.bases.digests[at] = digests[0]
        for hotkey, digest in sorted(claims.items()):
            _hold(run, run.members[hotkey], epoch, digest == run.bases.digests[at])
        del run.bases.claims[at]


def _frequency(claims: dict[str, str], digest: str) -> int:
    return sum(d == digest for d in claims.values())


def _hold(run: RunState, member: Member, epoch: int, agrees: bool) -> None:
    if epoch <= member.ready_epoch:
        return
    run.dirty = True
    if not agrees:
        if member.misloaded < epoch:  # once: it is told to load the base of its stage
            member.misloaded, member.told_base = epoch, -1
            run.incidents.named.append(f"{member.hotkey} holds another base of epoch {epoch} than its stage")
        return
    member.ready_epoch = epoch
    member.joined = None
    # A restart from disk needs what comes after this base; one epoch more is kept for what is in flight.
    member.events = [e for e in member.events if e[0] > member.cursor_start]
    member.cursor_start = member.next_seq - 1
    if run.phase is Phase.MERGING and epoch == run.epoch:
        ready = run.current.merges[member.stage].ready
        if ready is not None:
            run.send(member.hotkey, ready)  # it loaded this base after the merge had been announced
    if (epoch, member.stage) not in run.bases.assigned:
        assign_base(run, epoch, member.stage)


def assign_base(run: RunState, epoch: int, stage: int) -> None:
    """Ask a live replica that holds the base to store it: another one than before, if there is one."""
    before = run.bases.assigned.get((epoch, stage), ("", 0.0))[0]
    holders = [m for m in run.miners(stage) if m.live and m.ready_epoch >= epoch]
    for member in sorted(holders, key=lambda m: (m.hotkey == before, m.ready_epoch != epoch, m.order)):
        run.bases.assigned[epoch, stage] = (member.hotkey, run.now)
        run.send(member.hotkey, BaseAssign(epoch=epoch))
        return


def take_base(run: RunState, member: Member, report: BaseStored) -> None:
    """Record that the assigned replica has stored a base."""
    at = (report.epoch, member.stage)
    assigned = run.bases.assigned.get(at, ("", 0.0))[0]
    if assigned != member.hotkey or run.bases.digests.get(at) != report.digest:
        run.totals.unfit += 1
        return
    if at in run.bases.stored:
        return
    run.bases.stored[at] = BaseRecord(
        epoch=report.epoch, stage=member.stage, digest=report.digest, parts=report.parts
    )
    run.dirty = True
