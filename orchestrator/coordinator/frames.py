"""Frames: which notices are taken, who is told, and which ops can begin.

A frame is in the store, or its receiver keeps it: it came over a direct link, and the receiver's signature
says so, which the intake has verified. A receiver is told of frames in the store alone.
"""

from __future__ import annotations

from iota.protocol.events import FrameReady, StoreFrame
from iota.protocol.frames import Direction, FrameKept, FrameName, FrameNotice
from iota.wire.frame import leads_nowhere
from orchestrator.coordinator.epoch_state import (
    Denial,
    MicrobatchState,
    Place,
    PlannedStep,
    Stored,
)
from orchestrator.coordinator.member import Member, PendingKey
from orchestrator.coordinator.microbatches import backward_input, find_microbatch, stop_clock
from orchestrator.coordinator.state import RunState


def take_frames(run: RunState, member: Member, frames: tuple[FrameNotice, ...]) -> None:
    """Record delivered frames; of those in the store the next replica of their route is told."""
    for notice in frames:
        if (found := wanted_frame(run, member, notice)) is None:
            run.totals.unfit += 1
        else:
            _take_frame(run, member, notice, *found)


def wanted_frame(
    run: RunState, member: Member, notice: FrameNotice
) -> tuple[PlannedStep, MicrobatchState] | None:
    """The open microbatch of a frame whose notice changes something; else None.

    The frame is this member's to send now. It was not delivered; or it was kept, and is said to be in the
    store now. One that is kept is kept by the replica that is to have it, which has not denied it.
    """
    name = notice.name
    found = find_microbatch(run, name.epoch, name.step, name.microbatch)
    if found is None or name.stage != member.stage or found[1].ended is not None:
        return None
    step, mb = found
    place = mb.places[member.stage]
    if (place.miner, place.attempt) != (member.hotkey, name.attempt) or leads_nowhere(run.spec, name):
        return None
    delivered = place.frame(name.direction)
    if delivered is None:
        changes = notice.kept is None or _is_delivery(run, step, mb, name, notice.kept)
    else:
        changes = notice.kept is None and _adds(run, step, mb, delivered, notice)
    return found if changes else None


def _is_delivery(
    run: RunState, step: PlannedStep, mb: MicrobatchState, name: FrameName, kept: FrameKept
) -> bool:
    """Whether a frame is kept by the replica that is to have it, and need not be stored all the same."""
    if kept.receiver != mb.places[_destination(run, name)].miner:
        return False
    denial = step.denied.get(((mb.index, name.stage, name.direction), name.attempt))
    return denial is None or denial.receiver != kept.receiver or not denial.asked


def _adds(
    run: RunState, step: PlannedStep, mb: MicrobatchState, delivered: Stored, notice: FrameNotice
) -> bool:
    """Whether it is new that a delivered frame is in the store too, or that its sender contradicts itself."""
    name, (attempt, digest, _, receiver) = notice.name, delivered
    known = (mb.index, name.stage, name.direction) in step.in_store_too
    if receiver is None or known or attempt != name.attempt:
        return False
    sender = mb.places[name.stage].miner
    return notice.digest == digest or sender not in run.current.contradicted


def _take_frame(
    run: RunState, member: Member, notice: FrameNotice, step: PlannedStep, mb: MicrobatchState
) -> None:
    """Record a frame that is wanted."""
    name, kept, place = notice.name, notice.kept, mb.places[member.stage]
    at = (mb.index, name.stage, name.direction)
    if (delivered := place.frame(name.direction)) is not None:
        if notice.digest == delivered[1]:
            step.in_store_too.add(at)
        else:
            _contradicts(run, member, name)
        return
    if kept is not None and _is_doubtful(run, step, mb, name, kept):
        step.denied[at, name.attempt] = Denial(kept.receiver, asked=True)
        ask_to_store(run, step, mb, name)
        return
    target = _destination(run, name)
    receiver = None if kept is None else mb.places[target].miner
    place.store(name.direction, (name.attempt, notice.digest, notice.size, receiver))
    if name.direction is Direction.FORWARD:
        stop_clock(run, member, name.step, mb.index, name.direction)
    elif place.counted:  # else the microbatch waits for the receipt
        stop_clock(run, member, name.step, mb.index, backward_input(run, member))
    if kept is None:
        announce(run, step, mb, target, notice, member.hotkey)
    else:
        await_op(run, step, mb, target, name.direction)
        run.members[mb.places[target].miner].events.pack()


def _is_doubtful(
    run: RunState, step: PlannedStep, mb: MicrobatchState, name: FrameName, kept: FrameKept
) -> bool:
    """Whether a frame is to be stored though its receiver keeps it: it has denied it, is late already, or
    may have acknowledged it in a life whose disk it has lost.

    A late replica may have lost what it has acknowledged, and is not late twice.
    """
    denial = step.denied.get(((mb.index, name.stage, name.direction), name.attempt))
    denied = denial is not None and denial.receiver == kept.receiver
    return denied or run.members[kept.receiver].stalled or _had_it_in_a_lost_life(run, step, mb, name, kept)


def _had_it_in_a_lost_life(
    run: RunState, step: PlannedStep, mb: MicrobatchState, name: FrameName, kept: FrameKept
) -> bool:
    """Whether the receiver had the microbatch in an earlier life: its sender may show a word of that one."""
    stage, present = _destination(run, name), len(run.current.lives[kept.receiver]) - 1
    attempts = [attempt for miner, attempt in mb.places[stage].earlier if miner == kept.receiver]
    given = (step.given.find((mb.index, stage), attempt) for attempt in attempts)
    return any(each is not None and each.life < present for each in given)


def _contradicts(run: RunState, member: Member, name: FrameName) -> None:
    """The member named another digest of a frame than before."""
    run.totals.unfit += 1
    run.current.contradicted.add(member.hotkey)
    told = f"announced frame {name} with two digests"
    run.incidents.named.append(f"{member.hotkey} {told}")
    member.history.happened(run.now, run.epoch, f"it {told}")


def _destination(run: RunState, name: FrameName) -> int:
    target = name.direction.destination(name.stage, run.stages)
    assert target is not None, "frames that lead nowhere are not taken"
    return target


def frame_name(
    run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, made: Direction
) -> FrameName:
    """The name of the frame that the present attempt at a stage makes towards one side."""
    return FrameName(
        epoch=run.epoch,
        step=step.number,
        microbatch=mb.index,
        attempt=mb.places[stage].attempt,
        stage=stage,
        direction=made,
    )


def delivered_frame(
    run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, direction: Direction
) -> FrameReady:
    """A frame that is delivered, as it was announced."""
    place = mb.places[stage]
    delivered = place.frame(direction)
    assert delivered is not None
    attempt, digest, size, _ = delivered
    name = frame_name(run, step, mb, stage, direction).model_copy(update={"attempt": attempt})
    sender = next(miner for miner, its in reversed(place.had()) if its == attempt)
    return FrameReady(notice=FrameNotice(name=name, digest=digest, size=size), sender=sender)


def announce(
    run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, notice: FrameNotice, sender: str
) -> None:
    """Tell the replica at `stage` that a frame for it is in the store; its op can begin."""
    run.send(mb.places[stage].miner, FrameReady(notice=notice, sender=sender))
    await_op(run, step, mb, stage, notice.name.direction)


def announce_too(
    run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, direction: Direction
) -> None:
    """A frame of `stage` that was kept as well counts as in the store from now on, and its receiver is
    told."""
    place = mb.places[stage]
    delivered = place.frame(direction)
    assert delivered is not None
    step.in_store_too.discard((mb.index, stage, direction))
    place.store(direction, (*delivered[:3], None))
    told = delivered_frame(run, step, mb, stage, direction)
    announce(run, step, mb, _destination(run, told.notice.name), told.notice, told.sender)


def await_op(run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, direction: Direction) -> None:
    """Start the deadline of the op at `stage` that needs a frame of this direction, if others wait for it.

    It may be done already: its receipt may come before the sender's notice of a frame that was pushed.
    """
    place = mb.places[stage]
    waited_for = _is_waited_for(run, place, stage, direction)
    if waited_for and not mb.heldout and step.number <= run.newest_runnable:
        run.start_clock(run.members[place.miner], (step.number, mb.index, direction))


def _is_waited_for(run: RunState, place: Place, stage: int, direction: Direction) -> bool:
    if direction is Direction.FORWARD and stage < run.spec.last_stage:
        return place.forward is None
    return not place.counted or (stage > 0 and place.backward is None)


def ask_to_store(run: RunState, step: PlannedStep, mb: MicrobatchState, name: FrameName) -> None:
    """Ask the replica that has made a frame to store it, in the time of an op from now."""
    run.send(mb.places[name.stage].miner, StoreFrame(name=name))
    await_frame(run, step, mb, name.stage, name.direction)


def await_frame(
    run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, direction: Direction
) -> None:
    """A frame that was made is to be sent again: its deadline runs from now."""
    if mb.heldout or step.number > run.newest_runnable:
        return
    member = run.members[mb.places[stage].miner]
    needs = direction if direction is Direction.FORWARD else backward_input(run, member)
    op: PendingKey = (step.number, mb.index, needs)
    member.pending.pop(op, None)
    run.start_clock(member, op)
