"""Re-routing: work of replicas that are lost, late or sent unusable frames goes to others, or is dropped."""

from __future__ import annotations

import heapq

from iota.console.counts import counted
from iota.protocol.events import Reroute, StoreFrame
from iota.protocol.frames import Direction
from iota.protocol.member_records import Withdrawal
from orchestrator.coordinator.epoch_state import Ending, MicrobatchState, PlannedStep, counted_pairs
from orchestrator.coordinator.frames import (
    announce,
    announce_too,
    await_frame,
    await_op,
    delivered_frame,
    frame_name,
)
from orchestrator.coordinator.given_ops import Mark
from orchestrator.coordinator.heldout import give_up, tell_dropped
from orchestrator.coordinator.lives import give
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.microbatches import count, end_microbatch, reopen_microbatch
from orchestrator.coordinator.state import Phase, RunState


def relieve(run: RunState, member: Member) -> None:
    """Re-route the member's unfinished work of the open steps, where its stage has another replica.

    The least loaded replica takes each microbatch. Does nothing outside training, or for a validator.
    """
    if run.phase is not Phase.TRAINING:
        return
    others: list[tuple[int, int, Member]] = []
    """(open microbatches, order of join, replica): a heap."""
    begun = -1
    for at in sorted(member.work):
        step, mb = run.open_microbatch(at)
        if not is_held_by(mb, member):
            continue
        if step.number > begun:
            before, begun = begun, step.number
            for other in run.active(member.stage, begun):
                if other is not member and (before < 0 or not run.takes_part(other, before)):
                    heapq.heappush(others, (len(other.work), other.order, other))
        if others and not _is_given_up(run, step, mb):
            chosen = others[0][2]
            assign(run, step, mb, member.stage, chosen)
            heapq.heapreplace(others, (len(chosen.work), chosen.order, chosen))


def void_sums(run: RunState, member: Member) -> None:
    """The member lost its gradient sums of the open steps: other attempts at the microbatches are to count.

    Each is open again, or its neighbours' work on it would never be settled. Where it was re-routed before
    and that attempt is receipted, this one counts. Call `relieve` next: it moves those that the member has.
    """
    for step in run.current.open_steps():
        for index, _ in counted_pairs(step.order.pop(member.hotkey, bytearray())):
            mb = step.microbatches[index]
            if mb.ended is Ending.DROPPED:
                continue
            place, waiting = mb.places[member.stage], [mb.places[member.stage]]
            if mb.ended is Ending.SETTLED:
                reopen_microbatch(run, step, mb)
                waiting = mb.places
            place.counted = False
            mb.uncounted += 1
            holder = run.members[place.miner]
            if holder is not member and _has_receipted(run, step, mb, holder):
                count(run, step, mb, holder, place.attempt)
            for other in [run.members[each.miner] for each in waiting]:
                if other is not member and other.joined is not None and is_held_by(mb, other):
                    assign(run, step, mb, other.stage, other)
                    run.look_at(other)  # it may be gone


def _has_receipted(run: RunState, step: PlannedStep, mb: MicrobatchState, member: Member) -> bool:
    """Whether the member's present life has receipted the backward of the attempt that it has."""
    given = step.given.find((mb.index, member.stage), mb.places[member.stage].attempt)
    present = len(run.current.lives[member.hotkey]) - 1
    done = given is not None and given.life == present and bool(given.marks & Mark.BACKWARD)
    return done and member.joined is not None


def is_held_by(mb: MicrobatchState, member: Member) -> bool:
    """Whether the microbatch waits for the member: for its backward, or for a frame not stored yet."""
    place = mb.places[member.stage]
    if mb.ended is not None or place.miner != member.hotkey:
        return False
    sent = (Direction.FORWARD,) if mb.heldout else Direction
    unsent = (d for d in sent if place.frame(d) is None)
    sends = any(d.destination(member.stage, len(mb.places)) is not None for d in unsent)
    return not place.counted or sends


def repair(run: RunState) -> None:
    """Re-route work whose replica cannot do it now; earlier tries may have found no other replica."""
    stranded = sorted(run.changed.stranded.values(), key=lambda m: (m.stage, m.order))
    run.changed.stranded = {m.hotkey: m for m in stranded if m.work and not run.able(m)}
    newest = len(run.current.steps) - 1  # who takes part in a step takes part in those after it
    stages = {member.stage for member in run.changed.stranded.values()}
    active = {stage: run.active(stage, newest) for stage in stages}
    for member in list(run.changed.stranded.values()):  # more may be stranded by what is moved
        if active[member.stage]:
            relieve(run, member)


def _is_given_up(run: RunState, step: PlannedStep, mb: MicrobatchState) -> bool:
    """Drop a microbatch that had too many attempts."""
    if mb.next_attempt <= run.limits.attempts:
        return False
    drop(run, step, mb, f"{counted(mb.next_attempt, 'attempt')} failed")
    return True


def move(
    run: RunState,
    step: PlannedStep,
    mb: MicrobatchState,
    stage: int,
    why: str,
) -> None:
    """Have another replica do a microbatch's work at one stage; drop it, for the reason `why`, if none can.

    It is not counted as withdrawn from who has it: the caller says who is to blame.
    """
    others = [m for m in run.active(stage, step.number) if m.hotkey != mb.places[stage].miner]
    if not others:
        drop(run, step, mb, why)
    elif not _is_given_up(run, step, mb):
        assign(run, step, mb, stage, min(others, key=lambda m: (len(m.work), m.order)), blame=False)


def withdraw(run: RunState, member: Member, why: Withdrawal) -> None:
    """Count a microbatch that was taken from a member through its own doing: it lowers its timeliness."""
    member.withdrawn += 1
    run.current.withdrawn[member.hotkey] += 1
    member.history.withdraw(run.epoch, why)


def assign(
    run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, chosen: Member, *, blame: bool = True
) -> None:
    """Give a microbatch at one stage to `chosen`, as a new attempt.

    The event goes to it, to the replica that had the microbatch and to those of the stages beside it; input
    frames in the store are announced to `chosen`, and those that lie with another are sent or made again. It
    is counted as withdrawn from who had it with `blame`, and never from one that its owner has revoked: that
    may have worked well, and is paid nothing for open work. Nor is a held-out one.

    A held-out one whose frame is stored without a receipt is given up: the next stage may have used the
    frame, and does its op once.
    """
    place, old = mb.places[stage], run.members[mb.places[stage].miner]
    has_inputs = chosen is old and _is_of_present_life(run, step, mb, chosen)
    if mb.heldout and place.forward is not None:
        give_up(run, step, mb)
        return
    for direction in Direction:
        old.pending.pop((step.number, mb.index, direction), None)
    attempt, mb.next_attempt = mb.next_attempt, mb.next_attempt + 1
    beside = {at: mb.places[at].miner for at in (stage - 1, stage + 1) if 0 <= at < run.stages}
    event = Reroute(
        epoch=run.epoch,
        step=step.number,
        microbatch=mb.index,
        stage=stage,
        attempt=attempt,
        miner=chosen.hotkey,
        replaces=old.hotkey,
        before=beside.get(stage - 1),
        after=beside.get(stage + 1),
        send_forward=place.forward is None,
    )
    blame = blame and chosen is not old and not mb.heldout
    if blame and not run.owners.is_revoked(old.owner, old.hotkey):
        withdraw(run, old, Withdrawal.LATE if old.live and old.stalled else Withdrawal.ABSENT)
    place.earlier = place.had()
    place.miner, place.attempt = chosen.hotkey, attempt
    give(run, step.given, (mb.index, stage), attempt, chosen, forward=event.send_forward)
    old.work.pop((step.number, mb.index), None)
    chosen.work[step.number, mb.index] = None
    run.totals.rerouted += 1
    run.current.reroutes.append(event)
    for hotkey in dict.fromkeys([old.hotkey, chosen.hotkey, *beside.values()]):
        run.send(hotkey, event)
    if mb.heldout and place.counted:  # its receipt is of a frame that is lost
        place.counted = False
        mb.uncounted += 1
    if stage == 0 and event.send_forward and not mb.heldout and step.number <= run.newest_runnable:
        run.start_clock(chosen, (step.number, mb.index, Direction.FORWARD))
    _give_inputs(run, step, mb, stage, has_inputs)


def _is_of_present_life(run: RunState, step: PlannedStep, mb: MicrobatchState, member: Member) -> bool:
    """Whether the member was given its attempt in its present life, whose disk has what it keeps."""
    given = step.given.find((mb.index, member.stage), mb.places[member.stage].attempt)
    return given is not None and given.life == len(run.current.lives[member.hotkey]) - 1


def _give_inputs(run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, has_inputs: bool) -> None:
    """Give a new attempt at a stage its input frames. `has_inputs`: its replica has those that it kept."""
    lost: list[tuple[int, Direction, int]] = []
    """(stage, direction, attempt) of frames that nobody has but another replica, or an earlier life."""
    for at, direction in ((stage - 1, Direction.FORWARD), (stage + 1, Direction.BACKWARD)):
        delivered = mb.places[at].frame(direction) if 0 <= at < run.stages else None
        if delivered is None:
            continue
        if delivered[3] is None:
            told = delivered_frame(run, step, mb, at, direction)
            announce(run, step, mb, stage, told.notice, told.sender)
        elif has_inputs:
            await_op(run, step, mb, stage, direction)
        elif (mb.index, at, direction) in step.in_store_too:
            announce_too(run, step, mb, at, direction)
        else:
            mb.places[at].store(direction, None)
            lost.append((at, direction, delivered[0]))
    for at, direction, attempt in lost:
        send_again(run, step, mb, at, direction, attempt)


def send_again(
    run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, direction: Direction, attempt: int
) -> bool:
    """Have a frame of `attempt` sent again, which its receiver has not: it is forgotten already.

    Nobody is to blame. Who has the microbatch at that stage sends what it has made, once a re-route of the
    receiver's stage or `store_frame` tells it so: then this is True, and its deadline runs from now.
    Activations of an earlier attempt it has never made: then it has the microbatch anew. A replica that is
    yet to be admitted gets another attempt then.
    """
    if mb.ended is not None:
        return False
    place = mb.places[stage]
    holder = run.members[place.miner]
    others = [] if run.able(holder) else [m for m in run.active(stage, step.number) if m is not holder]
    if not run.able(holder):
        run.look_at(holder)
    never_made = direction is Direction.FORWARD and attempt != place.attempt
    if others or (never_made and holder.joined is not None):
        chosen = min(others, key=lambda m: (len(m.work), m.order)) if others else holder
        if not _is_given_up(run, step, mb):
            assign(run, step, mb, stage, chosen, blame=False)
        return False
    made = attempt == place.attempt or _has_receipted(run, step, mb, holder)
    if made and holder.joined is not None:
        await_frame(run, step, mb, stage, direction)
        if attempt != place.attempt:  # its notice was not wanted beside that of the earlier attempt
            run.send(holder.hotkey, StoreFrame(name=frame_name(run, step, mb, stage, direction)))
        return True
    return False


def drop(run: RunState, step: PlannedStep, mb: MicrobatchState, reason: str) -> None:
    """End an open microbatch without settling it. Gradients that are already counted stay in their sums."""
    if mb.heldout:
        give_up(run, step, mb)
        return
    end_microbatch(run, step, mb, Ending.DROPPED)
    run.incidents.named.append(
        f"epoch {run.epoch} step {step.number} microbatch {mb.index} dropped: {reason}"
    )
    tell_dropped(run, step, mb)


def take_overdue(run: RunState) -> list[Member]:
    """Note the replicas that missed a deadline, and return them; their work goes to others."""
    late = overdue(run)
    for member in late:
        run.incidents.named.append(f"{member.hotkey} missed a deadline at stage {member.stage}")
        member.stalled = True
        run.look_at(member)
        member.history.work(run.epoch).missed += 1
        member.history.happened(run.now, run.epoch, "it missed a deadline")
    return late


def overdue(run: RunState) -> list[Member]:
    """Replicas past the deadline of an op that does not wait for any earlier microbatch.

    Forwards and backwards run in the plan's order, so a replica may have ready work that waits for an
    earlier microbatch at another replica. Only the first open microbatch of a set of replicas can always
    go on, so only the replica that has it is late.
    """
    due = run.clocks.overdue(run.now) if run.phase is Phase.TRAINING else {}
    late: list[Member] = []
    busy: set[str] = set()
    for step in run.current.open_steps()[:1] if due else ():
        for mb in step.microbatches:
            if mb.ended is not None:
                continue
            route = {place.miner for place in mb.places}
            if route & busy:
                continue
            busy |= route
            for member in (run.members[hotkey] for hotkey in sorted(route & due.keys())):
                times = (run.clocks.deadline(member, (step.number, mb.index, d)) for d in Direction)
                if any(time is not None and run.now > time for time in times):
                    late.append(member)
            if busy.issuperset(due):
                return late
    return late
