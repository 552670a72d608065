"""Re-routing: work of replicas that are lost, late or sent unusable frames goes to others, or is dropped."""

from __future__ import annotations

from iota.console.counts import counted
from iota.protocol.events import Drop, Reroute
from iota.protocol.messages import BadValue, Direction, FrameMissing
from orchestrator.coordinator.epoch_state import Ending, MicrobatchState, PlannedStep
from orchestrator.coordinator.member import Member, PendingKey
from orchestrator.coordinator.microbatches import announce, end_microbatch, find_microbatch
from orchestrator.coordinator.state import Phase, RunState


def relieve(run: RunState, member: Member) -> None:
    """Re-route the member's unfinished work of the open steps, where its stage has another replica.

    Does nothing outside training, or for a validator.
    """
    if run.phase is not Phase.TRAINING or member.stage < 0:
        return
    for step in run.current.open_steps():
        for mb in step.microbatches:
            if is_held_by(mb, member):
                reroute(run, step, mb, member.stage)


def is_held_by(mb: MicrobatchState, member: Member) -> bool:
    """Whether the microbatch waits for the member: for its backward, or for a frame not stored yet."""
    place = mb.places[member.stage]
    if mb.ended is not None or place.miner != member.hotkey:
        return False
    unsent = (d for d in Direction if d not in place.frames)
    sends = any(d.destination(member.stage, len(mb.places)) is not None for d in unsent)
    return place.counted is None or sends


def repair(run: RunState) -> None:
    """Re-route work whose replica cannot do it now; earlier tries may have found no other replica."""
    for stage in range(run.stages):
        for member in run.miners(stage):
            if not member.live or member.stalled or member.ready_epoch != run.epoch:
                relieve(run, member)


def reroute(run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, *, blame: bool = True) -> bool:
    """Start a new attempt of one microbatch at one stage; False when no other replica can take it.

    The least loaded replica takes it. After too many attempts the microbatch is dropped. `blame`: count it
    against the replica that had it.
    """
    place = mb.places[stage]
    others = [m for m in run.active(stage, step.plan.step) if m.hotkey != place.miner]
    if not others:
        return False
    if mb.next_attempt > run.limits.attempts:
        drop(run, step, mb, f"{counted(mb.next_attempt, 'attempt')} failed")
        return True
    chosen = min(others, key=lambda m: (_load(run, m), m.order))
    assign(run, step, mb, stage, chosen, blame=blame)
    return True


def assign(
    run: RunState, step: PlannedStep, mb: MicrobatchState, stage: int, chosen: Member, *, blame: bool = True
) -> None:
    """Give a microbatch at one stage to `chosen`, as a new attempt.

    The event goes to it, to the replica that had the microbatch and to the whole route; stored input frames
    are announced to `chosen`.
    """
    place, old = mb.places[stage], run.members[mb.places[stage].miner]
    for direction in Direction:
        old.pending.pop((step.plan.step, mb.index, direction), None)
    attempt, mb.next_attempt = mb.next_attempt, mb.next_attempt + 1
    event = Reroute(
        epoch=run.epoch,
        step=step.plan.step,
        microbatch=mb.index,
        stage=stage,
        attempt=attempt,
        miner=chosen.hotkey,
        replaces=old.hotkey,
        route=tuple(chosen.hotkey if s == stage else p.miner for s, p in enumerate(mb.places)),
        send_forward=Direction.FORWARD not in place.frames,
    )
    if blame and chosen.hotkey != old.hotkey:
        old.withdrawn += 1
        run.current.withdrawn[old.hotkey] += 1
        old.history.work(run.epoch).withdrawn += 1
    place.miner, place.attempt = chosen.hotkey, attempt
    place.forward_receipted = False
    place.tried.add((chosen.hotkey, attempt))
    run.totals.rerouted += 1
    run.current.reroutes.append(event)
    for hotkey in dict.fromkeys([old.hotkey, *(p.miner for p in mb.places)]):
        run.send(hotkey, event)
    if stage == 0 and run.runnable(step.plan.step):
        chosen.pending.setdefault((step.plan.step, mb.index, Direction.FORWARD), run.now)
    inputs = {stage - 1: Direction.FORWARD, stage + 1: Direction.BACKWARD}
    for neighbour, direction in inputs.items():
        if 0 <= neighbour < run.stages and direction in mb.places[neighbour].frames:
            sender = mb.places[neighbour]
            announce(run, chosen.hotkey, sender.frames[direction], sender.miner)


def _load(run: RunState, member: Member) -> int:
    """Open microbatches that the member has."""
    return sum(
        mb.ended is None and mb.places[member.stage].miner == member.hotkey
        for step in run.current.open_steps()
        for mb in step.microbatches
    )


def drop(run: RunState, step: PlannedStep, mb: MicrobatchState, reason: str) -> None:
    """End a microbatch without settling it. Gradients that are already counted stay in their sums."""
    if mb.ended is not None:
        return
    end_microbatch(run, step, mb, Ending.DROPPED)
    run.incidents.named.append(
        f"epoch {run.epoch} step {step.plan.step} microbatch {mb.index} dropped: {reason}"
    )
    event = Drop(epoch=run.epoch, step=step.plan.step, microbatch=mb.index)
    for hotkey in sorted({h for place in mb.places for h, _ in place.tried}):
        run.send(hotkey, event)


def take_bad_value(run: RunState, member: Member, report: BadValue) -> None:
    """Drop a microbatch whose replica reports NaN or Inf."""
    found = find_microbatch(run, report.epoch, report.step, report.microbatch)
    if found is None or found[1].places[member.stage].miner != member.hotkey:
        run.totals.unfit += 1
        return
    drop(run, *found, f"NaN or Inf at stage {member.stage} ({member.hotkey})")


def take_missing(run: RunState, member: Member, report: FrameMissing) -> None:
    """Handle a receiver's report that a frame is missing or bad.

    Another replica of the sender's stage makes it again; where there is none the microbatch is dropped.
    """
    name = report.name
    found = find_microbatch(run, name.epoch, name.step, name.microbatch)
    mine = name.direction.destination(name.stage, run.stages) == member.stage
    if found is None or found[1].ended is not None or name.stage >= run.stages or not mine:
        run.totals.unfit += 1
        return
    step, mb = found
    place = mb.places[name.stage]
    if (
        mb.places[member.stage].miner != member.hotkey
        or place.attempt != name.attempt
        or name.direction not in place.frames
    ):
        run.totals.unfit += 1
        return
    run.incidents.named.append(
        f"frame {name} of {place.miner} cannot be used by {member.hotkey}: {report.reason}"
    )
    del place.frames[name.direction]
    # No blame: only the receiver says that the frame is bad, so the sender's timeliness must not suffer.
    if not reroute(run, step, mb, name.stage, blame=False):
        drop(run, step, mb, "a frame is gone and no other replica can make it again")


def overdue(run: RunState) -> list[Member]:
    """Replicas past the deadline of an op that does not wait for any earlier microbatch.

    Forwards and backwards run in the plan's order, so a replica may have ready work that waits for an
    earlier microbatch at another replica. Only the first open microbatch of a set of replicas can always
    go on, so only the replica that has it is late.
    """
    if run.phase is not Phase.TRAINING:
        return []
    late: list[Member] = []
    busy: set[str] = set()
    for step in run.current.open_steps()[:1]:
        for mb in step.microbatches:
            route = {place.miner for place in mb.places}
            if mb.ended is not None or route & busy:
                continue
            busy |= route
            for member in (run.members[hotkey] for hotkey in sorted(route)):
                due = (op_deadline(run, member, (step.plan.step, mb.index, d)) for d in Direction)
                if any(time is not None and run.now > time for time in due):
                    late.append(member)
    return late


def op_deadline(run: RunState, member: Member, op: PendingKey) -> float | None:
    """The time by which a ready op must be done.

    None where the op is not pending, or the member cannot be late: it is lost, or was late already.
    """
    since = member.pending.get(op)
    if since is None or not member.live or member.stalled:
        return None
    allowed = max(run.deadlines.ops[member.stage].seconds, member.replay_s)
    return max(since, member.last_progress) + allowed
