"""Receipts: how microbatches are done and settle, and how steps close."""

from __future__ import annotations

from iota.protocol.events import Drop, StepClose
from iota.protocol.frames import Direction, FrameName
from iota.protocol.receipts import MAX_LOSS, OpKind, Receipt
from orchestrator.coordinator import heldout, own_starts
from orchestrator.coordinator.epoch_state import (
    Ending,
    EpochState,
    Life,
    MicrobatchState,
    PlannedStep,
    count_pair,
    counted_pairs,
)
from orchestrator.coordinator.given_ops import Mark
from orchestrator.coordinator.lives import life_of
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merge_parts import take_merge_receipt
from orchestrator.coordinator.merging import accept_delta
from orchestrator.coordinator.op_clocks import own_limit
from orchestrator.coordinator.state import Phase, RunState

SMOOTHING = 0.1
"""Weight of a new duration in the moving average `Member.op_seconds`: about the last ten ops count."""
MIN_S = 1e-3
"""Shortest duration that enters the average: 0 there means that nothing was measured yet."""


def find_microbatch(
    run: RunState, epoch: int, step: int, index: int
) -> tuple[PlannedStep, MicrobatchState] | None:
    """The microbatch of an open step of the epoch in training, if it exists."""
    if run.phase is not Phase.TRAINING or epoch != run.epoch or step >= len(run.current.steps):
        return None
    state = run.current.steps[step]  # without microbatches if it is closed
    return (state, state.microbatches[index]) if index < len(state.microbatches) else None


def concerns(run: RunState, member: Member, name: FrameName) -> bool:
    """Whether a frame's microbatch is or was the member's, at the stage that sends it or that receives it."""
    epoch, destination = run.epochs.get(name.epoch), name.direction.destination(name.stage, run.stages)
    if epoch is None or member.stage not in (name.stage, destination) or name.step >= len(epoch.steps):
        return False
    return epoch.steps[name.step].given.was_given((name.microbatch, member.stage), member.order)


def start_clocks(run: RunState, step: int) -> None:
    """Start the deadlines of forwards whose input is there, in a step that has become runnable."""
    for mb in run.current.steps[step].microbatches:
        if mb.ended is not None or mb.heldout:
            continue
        for stage, place in enumerate(mb.places):
            arrived = stage == 0 or mb.places[stage - 1].forward is not None
            if arrived and place.forward is None and not place.counted:
                run.start_clock(run.members[place.miner], (step, mb.index, Direction.FORWARD))


def stop_clock(run: RunState, member: Member, step: int, index: int, direction: Direction) -> None:
    """Stop the deadline of an op: all that others wait for is stored.

    Of a FORWARD this is its frame, since a BACKWARD without the FORWARD's receipt is refused; of a BACKWARD
    or LOSS both frame and receipt.
    """
    member.pending.pop((step, index, direction), None)
    note_progress(run, member)


def measure(run: RunState, member: Member, step: int, index: int, direction: Direction) -> None:
    """Learn from a receipt how long the op took. Its deadline runs on until `stop_clock`.

    Nothing is learnt from the first one after a restart: the miner has repeated its epoch before.
    """
    since, before = member.pending.get((step, index, direction)), member.own_s
    if since is not None:
        member.history.work(run.epoch).met += 1
    if since is not None and not member.replay_s:
        seconds, limit = run.now - max(since, member.last_progress), run.deadlines.ops[member.stage]
        limit.add(seconds)
        share = SMOOTHING if member.op_seconds else 1.0
        member.op_seconds += share * (max(seconds, MIN_S) - member.op_seconds)
        member.own_s = own_limit(limit, member)
    note_progress(run, member, sooner=member.own_s < before)


def note_progress(run: RunState, member: Member, *, sooner: bool = False) -> None:
    """The member did something that it was asked to do: its deadlines run from now.

    `sooner`: its `own_s` is shorter.
    """
    sooner = sooner or member.replay_s > 0
    member.end_replay(run.now)
    member.last_progress, member.stalled = run.now, False
    run.clocks.arm(member, again=sooner)


def take_receipts(run: RunState, member: Member, receipts: tuple[Receipt, ...]) -> None:
    """Record receipts that continue the member's chain; others are skipped.

    A receipt of an epoch that is sealed, or that its miner has no part in, continues the chain and counts
    for nothing. One of an earlier epoch that is not sealed yet belongs to its seal, and is no progress. Nor
    is a STEP that is not the next of a closed step: there are as many of these as somebody makes up. Nor is a
    COMMIT: states are hashed beside the ops.
    """
    for receipt in receipts:
        digest = receipt.content_digest()
        if receipt.seq != member.receipts + 1 or receipt.previous != member.head:
            continue
        member.receipts, member.head = receipt.seq, digest
        if receipt.kind is OpKind.MERGE:
            take_merge_receipt(run, member, receipt)
        epoch = run.epochs.get(receipt.epoch)
        if epoch is None or epoch.seal is not None or member.hotkey not in epoch.stages:
            run.totals.unfit += 1
            continue
        epoch.receipts[member.hotkey].append(digest)
        epoch.last_receipt[member.hotkey] = receipt.seq
        member.receipt_epoch = max(member.receipt_epoch, receipt.epoch)
        member.history.work(run.epoch).count(receipt.kind)
        lives = epoch.lives.get(member.hotkey, [])
        index = life_of(epoch, member, receipt, lives)
        if index is None:
            run.totals.unfit += 1
            continue
        life = lives[index]
        life.first_receipt = life.first_receipt or receipt.seq
        if receipt.kind is OpKind.MERGE:
            continue
        if receipt.kind is OpKind.STEP:
            _take_step(run, member, epoch, life, receipt)
        elif receipt.kind is OpKind.COMMIT:
            _take_commit(run, member, epoch, life, receipt)
        else:
            _take_op(run, member, epoch, index, receipt)


def _take_step(run: RunState, member: Member, epoch: EpochState, life: Life, receipt: Receipt) -> None:
    if life.next_step != receipt.step or receipt.step >= epoch.closed_steps:
        return
    life.next_step += 1
    if epoch is run.current:
        note_progress(run, member)
    _end_epoch(run, member, epoch)


def _take_commit(run: RunState, member: Member, epoch: EpochState, life: Life, receipt: Receipt) -> None:
    """Record that a life has committed to its next version, whose STEP is receipted."""
    if life.next_commit != receipt.version or receipt.version > life.next_step:
        return
    life.committed, life.next_commit = receipt.version, run.spec.committed_after(receipt.version)
    if receipt.commitment is not None:
        life.moments, life.feedback = receipt.commitment.moments, receipt.commitment.feedback
    own_starts.note_commit(run, member, epoch, life)
    _end_epoch(run, member, epoch)


def _end_epoch(run: RunState, member: Member, epoch: EpochState) -> None:
    """A STEP or COMMIT may be the last one that a member's pseudo-gradient waited for."""
    if epoch.is_awaited:
        accept_delta(run, member, epoch)


def _take_op(run: RunState, member: Member, epoch: EpochState, life: int, receipt: Receipt) -> None:
    """Record an op of one of the member's lives. What an earlier life did counts in no sum."""
    at, mark = (receipt.microbatch, member.stage), Mark.of(receipt.kind)
    given = epoch.steps[receipt.step].given
    found = given.find(at, receipt.attempt)
    if found is None or found.marks & mark:
        return
    given.mark(at, receipt.attempt, mark)
    if epoch is not run.current:
        return
    if receipt.kind is not OpKind.EVAL:  # it sends nothing
        _note_output(run, member, receipt)
    if run.spec.is_heldout(receipt.microbatch):
        _take_heldout(run, member, receipt)
        return
    present = member.joined is not None and life == len(epoch.lives[member.hotkey]) - 1
    if receipt.kind is OpKind.FORWARD:
        _take_forward(run, member, receipt)
    elif present:
        _take_backward(run, member, receipt)


def _take_heldout(run: RunState, member: Member, receipt: Receipt) -> None:
    found = find_microbatch(run, receipt.epoch, receipt.step, receipt.microbatch)
    if found is None:
        return
    note_progress(run, member)
    heldout.take_op(run, member, found, receipt)


def _note_output(run: RunState, member: Member, receipt: Receipt) -> None:
    """Keep what the op's miner signed as the payload of the frame that it sends, while its step is open."""
    found = find_microbatch(run, receipt.epoch, receipt.step, receipt.microbatch)
    place = found[1].places[member.stage] if found else None
    if place is not None and (place.miner, place.attempt) == (member.hotkey, receipt.attempt):
        place.receipt(FrameName.of(receipt.key, member.stage).direction, receipt.output)


def _take_forward(run: RunState, member: Member, receipt: Receipt) -> None:
    found = find_microbatch(run, receipt.epoch, receipt.step, receipt.microbatch)
    place = found[1].places[member.stage] if found else None
    if place is not None and (place.miner, place.attempt) == (member.hotkey, receipt.attempt):
        measure(run, member, receipt.step, receipt.microbatch, Direction.FORWARD)


def _take_backward(run: RunState, member: Member, receipt: Receipt) -> None:
    found = find_microbatch(run, receipt.epoch, receipt.step, receipt.microbatch)
    if found is None:
        return  # of a closed step: neither summed nor paid
    step, mb = found
    place = mb.places[member.stage]
    if place.counted or mb.ended is Ending.DROPPED:
        return  # late, as above
    waited_on = backward_input(run, member)
    measure(run, member, receipt.step, mb.index, waited_on)
    if member.stage == 0 or place.backward is not None:  # stage 0 has no frame to store
        stop_clock(run, member, receipt.step, mb.index, waited_on)
    if receipt.kind is OpKind.LOSS and receipt.loss is not None and abs(receipt.loss) < MAX_LOSS:
        step.losses[mb.index] = receipt.loss
    count(run, step, mb, member, receipt.attempt)


def count(run: RunState, step: PlannedStep, mb: MicrobatchState, member: Member, attempt: int) -> None:
    """Count the gradient of an attempt that the member has receipted; none of its stage counts yet."""
    mb.places[member.stage].counted = True
    mb.uncounted -= 1
    count_pair(step.order[member.hotkey], mb.index, attempt)
    run.current.counted[member.hotkey] += 1
    member.worked = run.epoch
    if not mb.uncounted:
        end_microbatch(run, step, mb, Ending.SETTLED)
        _excuse(run, step, mb)


def _excuse(run: RunState, step: PlannedStep, mb: MicrobatchState) -> None:
    """Tell the replicas of which no attempt counts that a settled microbatch needs nothing more of them.

    Theirs was to send a frame in place of another attempt, whose receiver had it already: the notice of a
    frame that was pushed comes after it. Backwards run in order, so that it would wait for its gradient for
    ever.
    """
    for stage, place in enumerate(mb.places):
        given = step.given.find((mb.index, stage), place.attempt)
        if not place.attempt or (given is not None and given.marks & Mark.BACKWARD):
            continue
        counted = counted_pairs(step.order.get(place.miner, bytearray()))
        if all(index != mb.index for index, _ in counted):
            run.send(place.miner, Drop(epoch=run.epoch, step=step.number, microbatch=mb.index))


def backward_input(run: RunState, member: Member) -> Direction:
    """The direction of the frame that a backward waits for: the last stage's LOSS needs a forward frame."""
    return Direction.FORWARD if member.stage == run.spec.last_stage else Direction.BACKWARD


def end_microbatch(run: RunState, step: PlannedStep, mb: MicrobatchState, how: Ending) -> None:
    """End an open microbatch that is trained on, and stop the deadlines of its ops."""
    mb.ended = how
    step.open -= 1
    heldout.note_progress(run, step)
    for place in mb.places:
        member = run.members[place.miner]
        member.work.pop((step.number, mb.index), None)
        for direction in Direction:
            member.pending.pop((step.number, mb.index, direction), None)
    if how is Ending.SETTLED:
        run.totals.settled += 1
        run.totals.tokens += run.spec.data.tokens
    else:
        run.totals.dropped += 1


def reopen_microbatch(run: RunState, step: PlannedStep, mb: MicrobatchState) -> None:
    """Open a settled microbatch again: a gradient of it is lost."""
    mb.ended = None
    step.open += 1
    step.heldout_since = None
    for place in mb.places:
        run.members[place.miner].work[step.number, mb.index] = None
    run.totals.settled -= 1
    run.totals.tokens -= run.spec.data.tokens


def close_steps(run: RunState) -> bool:
    """Close, in order, every step whose microbatches have all ended. True if any was closed.

    What is kept of a closed step is its plan and what is counted.
    """
    epoch, before = run.current, run.current.closed_steps
    while epoch.closed_steps < len(epoch.steps) and epoch.steps[epoch.closed_steps].open == 0:
        _close(run, epoch.steps[epoch.closed_steps])
    return epoch.closed_steps > before


def _close(run: RunState, step: PlannedStep) -> None:
    epoch = run.current
    epoch.closed_steps += 1
    if step.losses:
        run.totals.losses.append(sum(step.losses.values()) / len(step.losses))
    heldout.keep_loss(run, step)
    step.microbatches = []
    step.in_store_too.clear()
    step.denied.clear()
    for member in run.roster.miners:  # who has left too: it may come back with what is on its disk
        if member.joined is None or not run.holds_start(member):
            continue
        member.events.age()
        commits = run.spec.is_committed(step.number + 1, epoch.lives[member.hotkey][-1].joined)
        member.given_receipts += 1 + commits  # its STEP, and the COMMIT to what that makes
        counted = counted_pairs(step.order[member.hotkey]) if member.hotkey in step.order else []
        tokens, stage = len(counted) * run.spec.data.tokens, (run.epoch, member.stage)
        member.tokens += tokens
        member.history.work(run.epoch).tokens += tokens
        totals = run.totals.stage_tokens
        totals[stage] = totals.get(stage, 0) + tokens
        run.send(
            member.hotkey,
            StepClose(
                epoch=epoch.epoch,
                step=step.number,
                counted=tuple(counted),
                learning_rate=step.learning_rate,
            ),
        )
    if run.newest_runnable < len(epoch.steps):
        start_clocks(run, run.newest_runnable)
