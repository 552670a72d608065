"""Denials: a receiver cannot use a frame that it has acknowledged, so that it is to come through the store.

Nobody can see whether sender or receiver is wrong, so nobody is blamed. Once the frame is in the store, words
against it are judged by what is there (`words`). A denial may come before the sender's notice of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iota.protocol.events import StoreFrame
from iota.protocol.frames import Direction, FrameName
from orchestrator.coordinator.epoch_state import Denial, MicrobatchState, PlannedStep
from orchestrator.coordinator.frames import announce_too, delivered_frame, frame_name
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.rerouting import send_again
from orchestrator.coordinator.state import RunState

MAX_DENIED: Final = 64
"""Frames that a member may deny in an epoch. With further ones it loses the work: who denies all that it
acknowledges makes its neighbours use the store, and gains nothing by it."""


def input_places(run: RunState, member: Member) -> tuple[tuple[int, Direction], ...]:
    """(stage, direction) of the frames that go into the member's ops: activations, then gradient."""
    places = ((member.stage - 1, Direction.FORWARD), (member.stage + 1, Direction.BACKWARD))
    return tuple((stage, direction) for stage, direction in places if 0 <= stage < run.stages)


def is_stored(run: RunState, step: PlannedStep, mb: MicrobatchState, name: FrameName) -> bool:
    """Whether a frame is in the store, and its receiver was told so."""
    delivered = mb.places[name.stage].frame(name.direction)
    return delivered is not None and delivered[0] == name.attempt and delivered[3] is None


def unstored_inputs(run: RunState, member: Member, step: PlannedStep, mb: MicrobatchState) -> list[FrameName]:
    """The frames that go into the member's ops and that it may have, though they are not in the store.

    Without the activations none of its ops runs. Whether it has a gradient that is not delivered nobody
    knows.
    """
    found = []
    for stage, direction in input_places(run, member):
        delivered = mb.places[stage].frame(direction)
        if delivered is not None and delivered[3] is not None:
            found.append(delivered_frame(run, step, mb, stage, direction).notice.name)
        elif delivered is None and direction is Direction.FORWARD:
            found.append(frame_name(run, step, mb, stage, direction))
    return found


def can_deny_early(
    run: RunState, member: Member, step: PlannedStep, mb: MicrobatchState, name: FrameName
) -> bool:
    """Whether a denial of a frame that is not delivered is new, and may stand: it is of the present
    attempt."""
    denial = step.denied.get(((mb.index, name.stage, name.direction), name.attempt))
    known = denial is not None and denial.receiver == member.hotkey
    present = name.attempt == mb.places[name.stage].attempt
    return present and not known and run.current.denied.get(member.hotkey, 0) < MAX_DENIED


def deny(
    run: RunState, member: Member, step: PlannedStep, mb: MicrobatchState, names: Sequence[FrameName]
) -> bool:
    """Take a receiver's word that it cannot use frames of a microbatch; False beyond `MAX_DENIED`."""
    before = run.current.denied.get(member.hotkey, 0)
    if before + len(names) > MAX_DENIED:
        return False
    run.current.denied[member.hotkey] = before + len(names)
    for name in names:
        if mb.ended is None:
            _deny(run, member, step, mb, name)
    return True


def store_what_is_lost(run: RunState, member: Member) -> None:
    """A late replica may have lost what it has acknowledged, and not know that it had it.

    Where nobody can do its work instead, all that its ops wait for comes through the store.
    """
    if any(other is not member for other in run.active(member.stage, len(run.current.steps) - 1)):
        return
    for number, index, _ in list(member.pending):
        step, mb = run.open_microbatch((number, index))
        for stage, direction in input_places(run, member) if mb.ended is None else ():
            delivered = mb.places[stage].frame(direction)
            if delivered is not None and delivered[3] == member.hotkey:
                name = delivered_frame(run, step, mb, stage, direction).notice.name
                _deny(run, member, step, mb, name, "was late, and may have lost")


def _deny(
    run: RunState,
    member: Member,
    step: PlannedStep,
    mb: MicrobatchState,
    name: FrameName,
    told: str = "could not use",
) -> None:
    at, place = (mb.index, name.stage, name.direction), mb.places[name.stage]
    denial = step.denied[at, place.attempt] = Denial(member.hotkey)
    if place.frame(name.direction) is None:
        return  # its maker is asked for it once it says that it has sent it
    member.history.happened(run.now, run.epoch, f"it {told} frame {name}, which it had acknowledged")
    if at in step.in_store_too:
        announce_too(run, step, mb, name.stage, name.direction)
        return
    place.store(name.direction, None)
    if send_again(run, step, mb, name.stage, name.direction, name.attempt):
        denial.asked = True
        if name.attempt == place.attempt:  # else it is asked already
            run.send(place.miner, StoreFrame(name=name))
