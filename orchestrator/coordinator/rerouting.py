"""Re-routing: work of replicas that are lost, late or wrong goes to others, or is dropped."""

from __future__ import annotations

from iota.protocol.events import Drop, Reroute
from iota.protocol.messages import BadValue, Direction, FrameMissing
from orchestrator.coordinator.epoch_state import End, MicrobatchState, StepState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.microbatches import end, find_microbatch, offer
from orchestrator.coordinator.state import Phase, RunState


def relieve(run: RunState, member: Member) -> None:
    """Give the member's unfinished work of the open steps to others of its stage, where there are any."""
    if run.phase is not Phase.TRAINING or member.stage < 0:
        return
    for step in list(run.current.open_steps()):
        for mb in step.microbatches:
            if is_held_by(mb, member):
                reroute(run, step, mb, member.stage)


def is_held_by(mb: MicrobatchState, member: Member) -> bool:
    """Whether others wait for the member: for its backward, or for a frame that it has not stored."""
    place = mb.places[member.stage]
    owes = place.counted is None or (member.stage > 0 and place.backward is None)
    owes = owes or (member.stage < len(mb.places) - 1 and place.forward is None)
    return mb.ended is None and place.miner == member.hotkey and owes


def repair(run: RunState) -> None:
    """Try again for work that is held by nobody who can do it."""
    if run.phase is not Phase.TRAINING:
        return
    for stage in range(run.stages):
        for member in run.miners(stage):
            if not member.live or member.stalled or member.ready_epoch != run.epoch:
                relieve(run, member)


def reroute(run: RunState, step: StepState, mb: MicrobatchState, stage: int, *, blame: bool = True) -> bool:
    """A new attempt of one microbatch at one stage; False when no other replica can take it."""
    place = mb.places[stage]
    number = step.plan.step
    others = [m for m in run.active(stage, number) if m.hotkey != place.miner]
    if not others:
        return False
    if mb.next_attempt > run.limits.attempts:
        drop(run, step, mb, f"{mb.next_attempt} attempts failed")
        return True
    chosen = min(others, key=lambda m: (_load(run, m), m.order))
    assign(run, step, mb, stage, chosen, blame=blame)
    return True


def assign(
    run: RunState,
    step: StepState,
    mb: MicrobatchState,
    stage: int,
    chosen: Member,
    *,
    blame: bool = True,
) -> None:
    """`chosen` takes over: it is told, its neighbours are told, and what is stored is offered to it."""
    place, old = mb.places[stage], run.members[mb.places[stage].miner]
    for direction in Direction:
        old.pending.pop((step.plan.step, mb.index, direction), None)
    attempt, mb.next_attempt = mb.next_attempt, mb.next_attempt + 1
    last = stage == run.stages - 1
    event = Reroute(
        epoch=run.epoch,
        step=step.plan.step,
        microbatch=mb.index,
        stage=stage,
        attempt=attempt,
        miner=chosen.hotkey,
        replaces=old.hotkey,
        route=tuple(chosen.hotkey if s == stage else p.miner for s, p in enumerate(mb.places)),
        send_forward=place.forward is None,
    )
    if blame and chosen.hotkey != old.hotkey:
        old.withdrawn += 1
        run.current.withdrawn[old.hotkey] += 1
    place.miner, place.attempt = chosen.hotkey, attempt
    place.forward_receipted = False
    place.tried.add((chosen.hotkey, attempt))
    run.totals.rerouted += 1
    run.current.reroutes.append(event)
    for hotkey in dict.fromkeys([old.hotkey, *(p.miner for p in mb.places)]):
        run.send(hotkey, event)
    before = mb.places[stage - 1] if stage else None
    if before is None:
        if run.runnable(step.plan.step):
            chosen.pending.setdefault((step.plan.step, mb.index, Direction.FORWARD), run.now)
    elif before.forward is not None:
        offer(run, chosen.hotkey, before.forward, before.miner)
    if not last:
        after = mb.places[stage + 1]
        if after.backward is not None:
            offer(run, chosen.hotkey, after.backward, after.miner)


def _load(run: RunState, member: Member) -> int:
    return sum(
        mb.ended is None and mb.places[member.stage].miner == member.hotkey
        for step in run.current.open_steps()
        for mb in step.microbatches
    )


def drop(run: RunState, step: StepState, mb: MicrobatchState, reason: str) -> None:
    """End a microbatch without settling it; stages whose backward is receipted keep it."""
    if mb.ended is not None:
        return
    end(run, step, mb, End.DROPPED)
    run.incidents.named.append(
        f"epoch {run.epoch} step {step.plan.step} microbatch {mb.index} dropped: {reason}"
    )
    event = Drop(epoch=run.epoch, step=step.plan.step, microbatch=mb.index)
    for hotkey in sorted({h for place in mb.places for h, _ in place.tried}):
        run.send(hotkey, event)


def take_bad_value(run: RunState, member: Member, report: BadValue) -> None:
    """Drop a microbatch whose holder met NaN or Inf."""
    found = find_microbatch(run, report.epoch, report.step, report.microbatch)
    if found is None or found[1].places[member.stage].miner != member.hotkey:
        run.totals.unfit += 1
        return
    drop(run, *found, f"NaN or Inf at stage {member.stage} ({member.hotkey})")


def take_missing(run: RunState, member: Member, report: FrameMissing) -> None:
    """A frame is gone or bad: its maker's place is given to another replica, or the microbatch ends."""
    name = report.name
    found = find_microbatch(run, name.epoch, name.step, name.microbatch)
    mine = name.direction.destination(name.stage, run.stages) == member.stage
    if found is None or found[1].ended is not None or name.stage >= run.stages or not mine:
        run.totals.unfit += 1
        return
    step, mb = found
    if mb.places[member.stage].miner != member.hotkey or mb.places[name.stage].attempt != name.attempt:
        run.totals.unfit += 1
        return
    place = mb.places[name.stage]
    forward = name.direction is Direction.FORWARD
    if (place.forward if forward else place.backward) is None:
        run.totals.unfit += 1
        return
    run.incidents.named.append(
        f"frame {name} of {place.miner} cannot be used by {member.hotkey}: {report.reason}"
    )
    if forward:
        place.forward = None
    else:
        place.backward = None
    # There is only the receiver's word that the frame is bad: the maker's timeliness does not suffer.
    if not reroute(run, step, mb, name.stage, blame=False):
        drop(run, step, mb, "a frame is gone and no other replica can make it again")


def overdue(run: RunState) -> list[Member]:
    """Replicas that hold up a microbatch which nothing before it holds up, past their deadline.

    Backwards and forwards keep the plan's order, so a replica may well have ready work that
    waits for an earlier microbatch somewhere else. Only the first open microbatch of a set of
    replicas can always go on, so only its holder is to blame.
    """
    if run.phase is not Phase.TRAINING:
        return []
    late: list[Member] = []
    busy: set[str] = set()
    step = next(run.current.open_steps(), None)
    for mb in step.microbatches if step else ():
        route = {place.miner for place in mb.places}
        if mb.ended is not None or route & busy:
            continue
        busy |= route
        for hotkey in sorted(route):
            member = run.members[hotkey]
            for direction in Direction:
                since = member.pending.get((step.plan.step, mb.index, direction)) if step else None
                limit = run.deadlines.ops[member.stage].seconds
                waits = since is not None and member.live and not member.stalled
                if waits and run.now > max(since or 0.0, member.last_progress) + limit:
                    late.append(member)
                    break
    return late
