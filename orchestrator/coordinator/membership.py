"""Membership: joins, leaves, losses and returns, and how each miner gets the current base."""

from __future__ import annotations

from iota.protocol.events import Admit, Event, LoadBase, RunEnd
from iota.protocol.messages import JoinRequest, Role
from iota.protocol.problems import Problem, ProblemType
from orchestrator.coordinator.auditing import repeat_requests
from orchestrator.coordinator.bases import assign_base
from orchestrator.coordinator.entries import Joined
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.rerouting import assign, is_held_by, relieve
from orchestrator.coordinator.state import Phase, RunState


def refusal(run: RunState, hotkey: str, request: JoinRequest) -> Problem | None:
    """The problem that refuses a join, or None: FORBIDDEN for a second role, RUN_ENDED after the end."""
    known = run.members.get(hotkey)
    if known is not None and known.role is not request.role:
        return Problem(
            ProblemType.FORBIDDEN,
            f"this hotkey is in the run as {known.role}; use another hotkey to join as {request.role}",
            extra={"member_as": str(known.role)},
        )
    if run.phase is Phase.FINISHED and request.role is Role.MINER and known is None:
        return Problem(ProblemType.RUN_ENDED, "this run has ended; join another one")
    return None


def join(run: RunState, entry: Joined) -> None:
    """Add a node, or take one back after a restart.

    A restarted miner resumes if its disk holds its receipts and its base; otherwise it starts as new.
    """
    hotkey, request = entry.hotkey, entry.request
    member = run.members.get(hotkey)
    if member is None:
        stage = _needed_stage(run) if request.role is Role.MINER else -1
        member = Member(hotkey, request.role, stage, len(run.members), request.capabilities)
        run.members[hotkey] = member
    else:
        # It may have computed the next base and stopped before it could report it.
        bases = (member.ready_epoch, member.ready_epoch + 1)
        kept = request.receipts >= member.receipts and request.epoch in bases
        member.resume = member.role is Role.VALIDATOR or (kept and member.ready_epoch >= 0)
        if not member.resume:
            _start_afresh(run, member)
    member.capabilities, member.addresses = request.capabilities, request.addresses
    member.live, member.left, member.stalled = True, False, False
    member.last_progress = run.now
    member.replay_s = replay_s(run, member) if member.resume else 0.0
    how = "joined again, from its disk" if member.resume else "joined"
    member.history.happened(run.now, run.epoch, f"it {how}")
    run.dirty = True
    repeat_requests(run, member)
    if run.run_end_sent:
        run.send(hotkey, RunEnd())


def _needed_stage(run: RunState) -> int:
    """The stage with the fewest live miners, then the fewest miners, then the lowest number."""
    return min(range(run.stages), key=lambda s: (sum(m.live for m in run.miners(s)), len(run.miners(s)), s))


def replay_s(run: RunState, member: Member) -> float:
    """Seconds that a miner may take to repeat its epoch after a restart, if it has done work in it.

    It sends no receipt until it has done all its ops of the epoch once more, as quickly as it did them.
    """
    done = len(run.current.receipts.get(member.hotkey, ()))
    return min(run.limits.max_s, run.limits.first_s + done * member.op_seconds) if done else 0.0


def _start_afresh(run: RunState, member: Member) -> None:
    """Reset a miner that lost its weights: others take its work, and its gradient sums are void."""
    member.live = False
    relieve(run, member)
    for step in run.current.open_steps():
        step.order.pop(member.hotkey, None)
    member.joined, member.ready_epoch, member.told_base = None, -1, -1
    member.pending.clear()
    member.events.clear()
    member.cursor_start = member.next_seq - 1


def leave(run: RunState, hotkey: str) -> None:
    """Mark a node as left for good: its work goes to others, and it gets no broadcasts any more."""
    lose(run, hotkey)
    if hotkey in run.members:
        run.members[hotkey].left = True
        run.members[hotkey].history.happened(run.now, run.epoch, "it left the run")


def lose(run: RunState, hotkey: str) -> None:
    """Mark a silent node as lost: its unfinished work goes to others."""
    member = run.members.get(hotkey)
    if member is None or not member.live:
        return
    member.live = False
    run.dirty = True
    member.history.happened(run.now, run.epoch, "it was silent for too long and counts as lost")
    relieve(run, member)


def come_back(run: RunState, hotkey: str) -> None:
    """Mark a lost node as live again, so that it can be given work."""
    member = run.members.get(hotkey)
    if member is not None and not member.left:
        member.live = True
        member.last_progress = run.now
        member.history.happened(run.now, run.epoch, "it is back")
        run.dirty = True


def offer_bases(run: RunState) -> None:
    """Send every miner that lacks the current base the events that lead to it.

    Also asks another replica to store a base that the first one did not store in time.
    """
    for member in () if run.phase is Phase.FINISHED else run.miners():
        if not member.live or member.ready_epoch >= run.epoch or member.told_base >= run.epoch:
            continue
        events = _events_to_base(run, run.epoch, member.stage)
        if events:
            member.told_base = run.epoch
        for event in events:
            run.send(member.hotkey, event)
    for (epoch, stage), (hotkey, since) in list(run.bases.assigned.items()):
        late = run.now > since + run.deadlines.merge.seconds
        wanted = (epoch, stage) not in run.bases.stored and epoch > run.newest_base
        if wanted and (late or not run.members[hotkey].live):
            assign_base(run, epoch, stage)


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
    before = run.epochs[epoch - 1].merges
    merge = before[stage].ready if before else None
    if merge is None:
        return []
    earlier = _events_to_base(run, epoch - 1, stage)
    return [*earlier, merge] if earlier else []


def admit(run: RunState) -> None:
    """Admit miners that hold the current base to the epoch, from its first open step.

    The next plan includes them. In steps that are planned already they take re-routed work only; a step
    without any leaves their weights unchanged.
    """
    epoch = run.current
    for member in run.miners():
        if not member.live or member.joined is not None or member.ready_epoch != run.epoch:
            continue
        step = epoch.closed_steps
        member.joined = (run.epoch, step)
        epoch.joined[member.hotkey] = step
        epoch.stages[member.hotkey] = member.stage
        run.send(member.hotkey, Admit(epoch=run.epoch, step=step))
        for state in epoch.steps[step:]:
            for mb in state.microbatches:
                if is_held_by(mb, member):
                    assign(run, state, mb, member.stage, member)
