"""Held-out microbatches of an epoch's first step: what they give, and when those that lack are left out.

They are planned and re-routed as the others, and enter no sum. Their ops have no deadline of their own. Once
nothing else of the step is open, they may go on while one of their ops ends in each time that a slow replica
has for an op, and for `TIMES` such times in all; what is then missing is left out of the loss. Nobody is
blamed for it: it is not paid.
"""

from __future__ import annotations

from typing import Final

from iota.protocol.events import Drop
from iota.protocol.heldout import base_loss
from iota.protocol.receipts import Receipt
from iota.wire.frame import FrameHeader
from orchestrator.coordinator import bridging
from orchestrator.coordinator.epoch_state import Ending, MicrobatchState, PlannedStep
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.op_clocks import OWN_TIMES
from orchestrator.coordinator.state import Phase, RunState

TIMES: Final = 4
"""A replica that ends each op just in time holds the step up no longer."""


def take_op(
    run: RunState, member: Member, found: tuple[PlannedStep, MicrobatchState], receipt: Receipt
) -> None:
    """Record the receipt of an op on a held-out microbatch.

    It settles with the receipts of all stages, in any order: an op without one cannot be audited. Each must
    go on from the attempt that counts at the stage before.
    """
    step, mb = found
    place = mb.places[member.stage]
    mine = (place.miner, place.attempt) == (member.hotkey, receipt.attempt)
    if mb.ended is not None or place.counted or not mine:
        return
    place.counted = True
    mb.uncounted -= 1
    if receipt.inputs:
        mb.inputs[member.stage] = FrameHeader.model_validate_json(receipt.inputs[0].header).name.attempt
    if receipt.loss is not None:
        step.heldout[mb.index] = receipt.loss
    note_progress(run, step)
    if mb.uncounted:
        return
    attempts = tuple(place.attempt for place in mb.places)
    if any(attempts[stage - 1] != attempt for stage, attempt in mb.inputs.items()):
        give_up(run, step, mb)
        return
    run.current.heldout[mb.index] = attempts
    end(run, step, mb, Ending.SETTLED)


def note_progress(run: RunState, step: PlannedStep) -> None:
    """An op on a held-out microbatch of the step has ended, or the last other microbatch of it has."""
    if step.heldout_open and step.heldout_open == step.open:
        began = step.heldout_since[0] if step.heldout_since is not None else run.now
        step.heldout_since = began, run.now


def deadline(run: RunState) -> float | None:
    """When the open held-out microbatches are left out (Unix seconds); None while others are open."""
    if run.phase is not Phase.TRAINING:
        return None
    since = next((step.heldout_since for step in run.current.open_steps()[:1]), None)
    if since is None:
        return None
    slowest = max(limit.seconds for limit in run.deadlines.ops)
    time_s = min(OWN_TIMES * slowest, run.limits.max_s)
    began, newest = since
    return min(newest + time_s, began + TIMES * time_s)


def leave_out(run: RunState) -> None:
    """Give up the held-out microbatches whose deadline has passed, so that their step can close."""
    until = deadline(run)
    if until is None or run.now <= until:
        return
    step = run.current.open_steps()[0]
    for mb in [mb for mb in step.microbatches if mb.ended is None]:
        give_up(run, step, mb)


def give_up(run: RunState, step: PlannedStep, mb: MicrobatchState) -> None:
    """End a held-out microbatch without its loss."""
    end(run, step, mb, Ending.DROPPED)
    tell_dropped(run, step, mb)


def tell_dropped(run: RunState, step: PlannedStep, mb: MicrobatchState) -> None:
    """Tell all that had a microbatch that it is dropped."""
    event = Drop(epoch=run.epoch, step=step.number, microbatch=mb.index)
    for hotkey in sorted({h for place in mb.places for h, _ in place.had()}):
        run.send(hotkey, event)


def end(run: RunState, step: PlannedStep, mb: MicrobatchState, how: Ending) -> None:
    """End an open held-out microbatch. One that is dropped has no loss."""
    mb.ended = how
    step.open -= 1
    step.heldout_open -= 1
    if how is Ending.DROPPED:
        step.heldout.pop(mb.index, None)
    for place in mb.places:
        run.members[place.miner].work.pop((step.number, mb.index), None)


def keep_loss(run: RunState, step: PlannedStep) -> None:
    """Keep the held-out loss of the epoch's base, when the step closes."""
    found = base_loss(step.heldout.values(), run.spec.data.tokens)
    if found is not None:
        run.totals.heldout[run.epoch] = found
        bridging.note_loss(run, run.epoch, found)
