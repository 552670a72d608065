"""Frames and receipts: how microbatches move through their routes, settle, and close their step."""

from __future__ import annotations

from iota.protocol.events import Counted, FrameReady, StepClose
from iota.protocol.messages import Direction, FrameNotice
from iota.protocol.receipts import MAX_LOSS, OpKind, Receipt
from orchestrator.coordinator.epoch_state import End, MicrobatchState, StepState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase, RunState

SMOOTHING = 0.1
MIN_S = 1e-3


def take_frames(run: RunState, member: Member, frames: tuple[FrameNotice, ...]) -> None:
    """Record stored frames; each is offered to the next replica of its route."""
    for notice in frames:
        found = find_microbatch(run, notice.name.epoch, notice.name.step, notice.name.microbatch)
        if found is None or not _take_frame(run, member, notice, found[1]):
            run.totals.unfit += 1


def find_microbatch(
    run: RunState, epoch: int, step: int, index: int
) -> tuple[StepState, MicrobatchState] | None:
    """The microbatch of a planned step of the epoch in training, if it exists."""
    if run.phase is not Phase.TRAINING or epoch != run.epoch or step >= len(run.current.steps):
        return None
    state = run.current.steps[step]
    return (state, state.microbatches[index]) if index < len(state.microbatches) else None


def _take_frame(run: RunState, member: Member, notice: FrameNotice, mb: MicrobatchState) -> bool:
    name = notice.name
    place = mb.places[member.stage]
    if name.stage != member.stage or (place.miner, place.attempt) != (member.hotkey, name.attempt):
        return False
    forward = name.direction is Direction.FORWARD
    target = name.direction.destination(member.stage, run.stages)
    if target is None or mb.ended is not None:
        return mb.ended is not None
    if (place.forward if forward else place.backward) is not None:
        return True
    if forward:
        place.forward = notice
        done(run, member, name.step, mb.index, Direction.FORWARD)
    else:
        place.backward = notice
        done(run, member, name.step, mb.index, _backward_waits_on(run, member))
    offer(run, mb.places[target].miner, notice, member.hotkey)
    return True


def offer(run: RunState, receiver: str, notice: FrameNotice, sender: str) -> None:
    """Tell `receiver` that a frame for it is stored, and start its clock."""
    run.send(receiver, FrameReady(notice=notice, sender=sender))
    if run.runnable(notice.name.step):
        key = (notice.name.step, notice.name.microbatch, notice.name.direction)
        run.members[receiver].pending.setdefault(key, run.now)


def note_ready(run: RunState, step: int) -> None:
    """A step has become runnable: start the clocks of what is ready in it."""
    for mb in run.current.steps[step].microbatches:
        if mb.ended is not None:
            continue
        for stage, place in enumerate(mb.places):
            pending = run.members[place.miner].pending
            arrived = stage == 0 or mb.places[stage - 1].forward is not None
            if arrived and place.forward is None and place.counted is None:
                pending.setdefault((step, mb.index, Direction.FORWARD), run.now)


def done(run: RunState, member: Member, step: int, index: int, direction: Direction) -> None:
    """The frame that others wait for is stored: stop the op's clock."""
    member.pending.pop((step, index, direction), None)
    progress(run, member)


def receipted(run: RunState, member: Member, step: int, index: int, direction: Direction) -> None:
    """An op has run: learn how long it took. Its clock runs on until its frame is stored."""
    since = member.pending.get((step, index, direction))
    if since is not None:
        seconds = run.now - max(since, member.last_progress)
        run.deadlines.ops[member.stage].add(seconds)
        share = SMOOTHING if member.op_seconds else 1.0
        member.op_seconds += share * (max(seconds, MIN_S) - member.op_seconds)
    progress(run, member)


def progress(run: RunState, member: Member) -> None:
    """The member has done something that it was asked to do."""
    member.last_progress = run.now
    member.stalled = False


def take_receipts(run: RunState, member: Member, receipts: tuple[Receipt, ...]) -> None:
    """Record receipts; the caller has checked that they chain on to the member's last one."""
    for receipt in receipts:
        digest = receipt.content_digest()
        if receipt.seq != member.receipts + 1 or receipt.previous != member.head:
            continue
        member.receipts, member.head = receipt.seq, digest
        epoch = run.epochs.get(receipt.epoch)
        late = epoch is None or epoch.seal is not None or receipt.epoch != run.epoch
        if epoch is None or late or member.hotkey not in epoch.stages:
            run.totals.unfit += 1
            continue
        epoch.receipts[member.hotkey].append(digest)
        epoch.first_receipt.setdefault(member.hotkey, receipt.seq)
        if receipt.kind in (OpKind.BACKWARD, OpKind.LOSS):
            _take_backward(run, member, receipt)
        elif receipt.kind is OpKind.FORWARD:
            _take_forward(run, member, receipt)
        elif receipt.kind is OpKind.STEP and (receipt.epoch, receipt.step) > member.last_step:
            member.last_step = (receipt.epoch, receipt.step)
            progress(run, member)


def _take_forward(run: RunState, member: Member, receipt: Receipt) -> None:
    found = find_microbatch(run, receipt.epoch, receipt.step, receipt.microbatch)
    place = found[1].places[member.stage] if found else None
    if place is None or (place.miner, place.attempt) != (member.hotkey, receipt.attempt):
        return  # late: paid by its receipt
    if not place.forward_receipted:
        place.forward_receipted = True
        receipted(run, member, receipt.step, receipt.microbatch, Direction.FORWARD)


def _take_backward(run: RunState, member: Member, receipt: Receipt) -> None:
    found = find_microbatch(run, receipt.epoch, receipt.step, receipt.microbatch)
    if found is None:
        run.totals.unfit += 1
        return
    step, mb = found
    place = mb.places[member.stage]
    if place.counted is not None or (member.hotkey, receipt.attempt) not in place.tried or step.closed:
        return  # late: paid by its receipt, never summed
    if mb.ended is End.DROPPED:
        return
    waited_on = _backward_waits_on(run, member)
    receipted(run, member, receipt.step, mb.index, waited_on)
    if member.stage == 0:  # it has no frame to store
        done(run, member, receipt.step, mb.index, waited_on)
    place.counted = (member.hotkey, receipt.attempt)
    step.order[member.hotkey].append((mb.index, receipt.attempt))
    if receipt.kind is OpKind.LOSS and receipt.loss is not None and abs(receipt.loss) < MAX_LOSS:
        step.losses.append(receipt.loss)
    if all(p.counted is not None for p in mb.places):
        end(run, step, mb, End.SETTLED)


def _backward_waits_on(run: RunState, member: Member) -> Direction:
    """The frame that a backward waits for: the last stage's LOSS waits for a forward."""
    return Direction.FORWARD if member.stage == run.stages - 1 else Direction.BACKWARD


def end(run: RunState, step: StepState, mb: MicrobatchState, how: End) -> None:
    """A microbatch ends once; the step that has no open one left is ready to close."""
    if mb.ended is not None:
        return
    mb.ended = how
    step.open -= 1
    for place in mb.places:
        for direction in Direction:
            run.members[place.miner].pending.pop((step.plan.step, mb.index, direction), None)
    if how is End.SETTLED:
        run.totals.settled += 1
        run.totals.tokens += run.spec.data.tokens
    else:
        run.totals.dropped += 1


def close_steps(run: RunState) -> bool:
    """Close, in order, every step whose microbatches have all ended. True if any was closed."""
    epoch, closed = run.current, False
    while epoch.closed_steps < len(epoch.steps) and epoch.steps[epoch.closed_steps].open == 0:
        _close(run, epoch.steps[epoch.closed_steps])
        closed = True
    return closed


def _close(run: RunState, step: StepState) -> None:
    epoch = run.current
    step.closed = True
    epoch.closed_steps += 1
    if step.losses:
        run.totals.losses.append(sum(step.losses) / len(step.losses))
    for member in run.miners():
        if member.joined is None or member.ready_epoch != run.epoch:
            continue
        counted = step.order.get(member.hotkey, [])
        member.tokens += len(counted) * run.spec.data.tokens
        run.send(
            member.hotkey,
            StepClose(
                epoch=epoch.epoch,
                step=step.plan.step,
                counted=tuple(Counted(microbatch=i, attempt=a) for i, a in counted),
                learning_rate=step.plan.learning_rate,
            ),
        )
    for later in range(epoch.closed_steps, len(epoch.steps)):
        if run.runnable(later):
            note_ready(run, later)
