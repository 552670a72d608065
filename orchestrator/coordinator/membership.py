"""Membership: joins, leaves, losses and returns, and how each miner gets the current base."""

from __future__ import annotations

from iota.protocol.events import Admit, Event, LoadBase, RunEnd
from iota.protocol.messages import JoinRequest, Role
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.workers import Revocation
from orchestrator.coordinator import evidence
from orchestrator.coordinator.auditing import repeat_requests
from orchestrator.coordinator.entries import Joined
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.lives import begin_life, must_wait
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.op_clocks import own_limit
from orchestrator.coordinator.own_starts import must_commit
from orchestrator.coordinator.rerouting import assign, is_held_by, relieve, void_sums
from orchestrator.coordinator.state import Phase, RunState


def refusal(run: RunState, hotkey: str, request: JoinRequest) -> Problem | None:
    """The problem that refuses a join, or None.

    FORBIDDEN for a second role, BAD_CERTIFICATE for a second owner, NOT_A_MEMBER for a revoked worker,
    RUN_ENDED after the end.
    """
    known = run.members.get(hotkey)
    if known is not None and known.role is not request.role:
        return Problem(
            ProblemType.FORBIDDEN,
            f"this hotkey is in the run as {known.role}; use another hotkey to join as {request.role}",
            extra={"member_as": str(known.role)},
        )
    if run.phase is Phase.FINISHED and request.role is Role.MINER and known is None:
        return Problem(ProblemType.RUN_ENDED, "this run has ended; join another one")
    return run.owners.refusal(hotkey, known, request)


def join(run: RunState, entry: Joined) -> None:
    """Add a node, or take one back after a restart.

    A restarted miner resumes if its disk holds its receipts and its base, and its device is of the same
    class; otherwise it starts as new, and a new life of it begins.
    """
    hotkey, request = entry.hotkey, entry.request
    member = run.members.get(hotkey)
    if member is None:
        stage = run.roster.needed_stage() if request.role is Role.MINER else -1
        member = Member(hotkey, request.role, stage, len(run.members), request.capabilities.device)
        member.certificate = request.certificate
        if member.role is Role.MINER:
            member.own_s = own_limit(run.deadlines.ops[stage], member)
        run.roster.add(member)
        run.owners.add(member)
    else:
        # It may have computed the next base and stopped before it could report it.
        bases = (member.ready_epoch, member.ready_epoch + 1)
        kept = request.receipts >= member.receipts and request.epoch in bases
        kept = kept and request.capabilities.device == member.device
        member.resume = member.role is Role.VALIDATOR or (kept and member.ready_epoch >= 0)
        if not member.resume:
            _start_afresh(run, member)
    member.session, member.joined_at = request.session, run.now
    member.device, member.addresses = request.capabilities.device, request.addresses
    member.stalled = False
    if member.resume:
        _let_repeat(run, member)
    else:
        member.last_progress, member.replay_s = run.now, 0.0
    run.roster.set_live(member, True)
    run.clocks.arm(member, again=True)
    run.look_at(member)
    how = "joined again, from its disk" if member.resume else "joined"
    member.history.happened(run.now, run.epoch, f"it {how}")
    repeat_requests(run, member)
    if run.run_end_sent:
        run.send(hotkey, RunEnd())


def replay_s(run: RunState, member: Member) -> float:
    """Seconds that a miner may take to repeat its epoch after a restart, if it has done work in it.

    It sends no receipt until it has done all its ops of the epoch once more, as quickly as it did them.
    """
    near = (run.current, *run.awaiting())
    tree = next((each.receipts[member.hotkey] for each in near if member.hotkey in each.receipts), None)
    done = 0 if tree is None else tree.count
    return min(run.limits.max_s, run.limits.first_s + done * member.op_seconds) if done else 0.0


def _let_repeat(run: RunState, member: Member) -> None:
    """Give a member that continues from its disk the time to repeat its epoch.

    All its restarts in an epoch have that time together: else one that restarts after each op would have it
    for every op. The only replica of a stage has it each time, since nobody could do the work in its place.
    """
    member.end_replay(run.now)
    first = member.restarted < run.epoch
    if first:
        member.restarted, member.replayed = run.epoch, 0.0
    mine = member.live and run.holds_start(member)
    others = run.holding(member.stage) > mine
    left = replay_s(run, member) - (member.replayed if others else 0.0)
    if first or left > 0:
        member.last_progress, member.replay_s = run.now, max(0.0, left)


def _start_afresh(run: RunState, member: Member) -> None:
    """Reset a miner that lost its weights: others take its work, and its gradient sums are void."""
    run.roster.set_live(member, False)
    _lose_epoch(run, member)
    for epoch in run.awaiting():
        _lose_delta(epoch, member)
    run.roster.set_ready(member, -1)
    member.told_base = member.ended = -1
    member.pending.clear()
    member.cursor_start = member.events.next_seq - 1
    member.events.forget_through(member.cursor_start)


def _lose_epoch(run: RunState, member: Member) -> None:
    """What the member has done in the current epoch and is not merged is void, and others take its work."""
    void_sums(run, member)
    relieve(run, member)
    _lose_delta(run.current, member)
    member.joined = None


def _lose_delta(epoch: EpochState, member: Member) -> None:
    """The member gives no pseudo-gradient of what it did in an epoch, unless it has given it already.

    What it gives later will be that of its new life.
    """
    if not any(member.hotkey in merge.deltas for merge in epoch.merges):
        epoch.counted.pop(member.hotkey, None)
        epoch.ended.pop(member.hotkey, None)
    for merge in epoch.merges:
        merge.early.pop(member.hotkey, None)
        merge.uncommitted.discard(member.hotkey)
        if not merge.fixed:
            merge.owing.discard(member.hotkey)


def begin_anew(run: RunState) -> None:
    """Void lives that began with a contribution that is not in the merge: their miners take the anchor."""
    voided, run.changed.void = run.changed.void, {}
    for member in voided.values():
        lives = run.current.lives.get(member.hotkey, ())
        if lives and lives[-1].carries and not lives[-1].void:
            lives[-1].void = True
            _lose_epoch(run, member)
            run.look_at(member)


def leave(run: RunState, hotkey: str, told: str = "it left the run") -> None:
    """Mark a node as left for good: its work goes to others, and it gets no broadcasts any more.

    `told` is the incident in its record.
    """
    if (member := run.members.get(hotkey)) is not None:
        member.history.happened(run.now, run.epoch, told)
        _give_up(run, member)
        run.roster.leave(member)


def revoke(run: RunState, revocation: Revocation) -> None:
    """Record a revocation. The worker is treated as one that left; its earlier receipts stand.

    What it owes to audits is decided at once. It would else be waited for, though nothing of it is taken.
    """
    if run.owners.revoke(revocation):
        member = run.members.get(revocation.worker)
        if member is not None and member.owner == revocation.owner:
            leave(run, member.hotkey, "its owner revoked its key")
            run.outbox.woken.add(member.hotkey)  # its open exchange ends with a refusal
            evidence.miss_of_revoked(run, member)


def lose(run: RunState, hotkey: str) -> None:
    """Mark a silent node as lost: its unfinished work goes to others."""
    member = run.members.get(hotkey)
    if member is not None and member.live:
        member.history.happened(run.now, run.epoch, "it was silent for too long and counts as lost")
        _give_up(run, member)


def _give_up(run: RunState, member: Member) -> None:
    """Have others do the unfinished work of a node that is gone."""
    if member.live:
        run.roster.set_live(member, False)
        run.look_at(member)
        relieve(run, member)


def come_back(run: RunState, hotkey: str) -> None:
    """Mark a lost node as live again, so that it can be given work."""
    member = run.members.get(hotkey)
    if member is not None and not member.left:
        member.last_progress = run.now
        run.roster.set_live(member, True)
        run.look_at(member)
        member.history.happened(run.now, run.epoch, "it is back")


def offer_bases(run: RunState) -> None:
    """Send every miner that lacks the current base the events that lead to it.

    One that made a wrong next base makes it anew: perhaps no other replica of its stage holds the right one.
    Of one that never took the base which it was sent before, the events before that are forgotten.
    """
    lacking, run.changed.offers = run.changed.offers, {}
    for member in () if run.phase is Phase.FINISHED else lacking.values():
        epoch = max(run.anchor, member.misloaded)
        if not member.live or member.ready_epoch >= epoch or member.told_base >= epoch:
            continue
        events = _events_to_base(run, epoch, member.stage)
        if events:
            if member.told_base > member.ready_epoch:
                member.forget_events()
            member.told_base = epoch
        else:
            run.changed.offers[member.hotkey] = member
        for event in events:
            run.send(member.hotkey, event)


def _events_to_base(run: RunState, epoch: int, stage: int) -> list[Event]:
    """Events that lead a miner without any state to the base of `epoch`.

    They name the stored base or, while it is not stored, the base before and its merge. Empty where
    neither exists yet.
    """
    base = run.bases.stored.get((epoch, stage))
    if base is not None:
        return [LoadBase(epoch=epoch, digest=base.digest, parts=base.parts)]
    if epoch == 0:
        return [LoadBase(epoch=0, digest=run.bases.digests.get((0, stage)))]
    before = run.epochs.get(epoch - 1)
    merge = before.merges[stage].ready if before is not None and before.merges else None
    if merge is None:
        return []
    earlier = _events_to_base(run, epoch - 1, stage)
    return [*earlier, merge] if earlier else []


def _send_merge(run: RunState, member: Member) -> None:
    """With overlap, send a miner that is admitted the merge that it has not applied, perhaps once more.

    Events before its admission are forgotten once it has begun.
    """
    held = run.epochs.get(member.ready_epoch) if run.spec.overlaps else None
    ready = held.merges[member.stage].ready if held is not None and held.merges else None
    if ready is not None:
        run.send(member.hotkey, ready)


def admit(run: RunState) -> None:
    """Admit miners that hold the current base to the epoch, from its first open step.

    The next plan includes them. In steps that are planned already they take re-routed work only; a step
    without any leaves their weights unchanged. A miner that took the base anew too often waits for the next
    epoch.
    """
    epoch, candidates = run.current, run.changed.admissions
    run.changed.admissions = {}
    for member in sorted(candidates.values(), key=lambda m: m.order):
        if not member.live or member.joined is not None or not run.holds_start(member):
            continue
        if must_wait(run, member) or must_commit(run, member):
            run.changed.admissions[member.hotkey] = member
            continue
        step = epoch.closed_steps
        member.joined = (run.epoch, step)
        carries = member.hotkey in epoch.carried
        if run.spec.overlaps:  # an own start is made of what lies on the disk, once
            anew = member.hotkey in epoch.lives
            carries = carries and not anew and member.ended == run.epoch - 1
            member.admitted = member.events.next_seq
            if anew:
                member.forget_events_before_admission()
        begin_life(run, member, carries=carries)
        epoch.stages[member.hotkey] = member.stage
        run.send(member.hotkey, Admit(epoch=run.epoch, step=step, carries=carries))
        _send_merge(run, member)
        for at in sorted(member.work):
            state, mb = run.open_microbatch(at)
            if is_held_by(mb, member):
                assign(run, state, mb, member.stage, member)
