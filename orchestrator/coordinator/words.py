"""Words of members against frames (missing, NaN or Inf): what the server found decides who loses the work."""

from __future__ import annotations

from collections.abc import Mapping

from iota.protocol.events import FrameReady
from iota.protocol.frames import FrameName
from iota.protocol.member_records import Withdrawal
from iota.protocol.messages import BadValue, FrameMissing
from iota.protocol.records import MAX_WORDS, Word
from iota.wire.frame import leads_nowhere
from orchestrator.coordinator.denials import can_deny_early, deny, input_places, is_stored, unstored_inputs
from orchestrator.coordinator.entries import Finding
from orchestrator.coordinator.epoch_state import MicrobatchState, PlannedStep
from orchestrator.coordinator.frames import delivered_frame
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.microbatches import find_microbatch
from orchestrator.coordinator.rerouting import drop, move, withdraw
from orchestrator.coordinator.state import RunState

MAX_LOOKS = 64
"""Unproven words of one member and epoch for which the server reads frames. Further ones count as unproven
unread, or a member could have it read the store all the time."""
_COST = "so that the microbatch counts as withdrawn from it"
Findings = Mapping[FrameName, Finding]
_TOLD = {
    Finding.OTHER: "stored other bytes than it announced",
    Finding.INVALID: "announced and stored what is no frame of the output that it receipted",
    Finding.NOT_FINITE: "sent NaN or Inf",
}
"""Findings that are the sender's doing: a key is created once, and the digest announced is its own word. A
miner sends no NaN of its own; large values are those of a model that diverges, and cost nobody."""


def questioned(run: RunState, member: Member, report: BadValue | FrameMissing) -> list[FrameReady]:
    """The frames in the store that a word is about, for the server to read before it records the word."""
    if run.current.unproven.get(member.hotkey, 0) >= MAX_LOOKS:
        return []
    if isinstance(report, BadValue):
        found = bad_microbatch(run, member, report)
        return [] if found is None or unstored_inputs(run, member, *found) else _inputs(run, member, *found)
    missed = missed_microbatch(run, member, report)
    if missed is None or not is_stored(run, *missed, report.name):
        return []
    return [delivered_frame(run, *missed, report.name.stage, report.name.direction)]


def receipted(run: RunState, name: FrameName) -> str | None:
    """The payload that the sender of a stored frame signed as its op's output; None if that is not known."""
    found = find_microbatch(run, name.epoch, name.step, name.microbatch)
    return None if found is None else found[1].places[name.stage].output(name.direction, name.attempt)


def bad_microbatch(
    run: RunState, member: Member, report: BadValue
) -> tuple[PlannedStep, MicrobatchState] | None:
    """The open microbatch that this replica has and reports as NaN or Inf; else None."""
    found = find_microbatch(run, report.epoch, report.step, report.microbatch)
    if found is None or found[1].ended is not None:
        return None
    return found if found[1].places[member.stage].miner == member.hotkey else None


def missed_microbatch(
    run: RunState, member: Member, report: FrameMissing
) -> tuple[PlannedStep, MicrobatchState] | None:
    """The open microbatch of a frame that this member needs and reports as missing; else None.

    The frame is delivered; or it is of the attempt that has its place now, and may have come over a direct
    link before its sender's notice.
    """
    name = report.name
    found = find_microbatch(run, name.epoch, name.step, name.microbatch)
    mine = name.direction.destination(name.stage, run.stages) == member.stage
    if found is None or found[1].ended is not None or name.stage >= run.stages or not mine:
        return None
    if leads_nowhere(run.spec, name) or found[1].places[member.stage].miner != member.hotkey:
        return None
    delivered = found[1].places[name.stage].frame(name.direction)
    if delivered is None:
        return found if can_deny_early(run, member, *found, name) else None
    return found if delivered[0] == name.attempt else None


def take_missing(run: RunState, member: Member, report: FrameMissing, looked: Findings) -> None:
    """Handle a receiver's report that a frame is missing or bad.

    A frame that it has acknowledged, and that is nowhere else, is to come through the store first
    (`denials`). Where the server found the frame as it was announced, large values or not, the receiver loses
    the work. Else another replica of the sender's stage makes it again; where there is none the microbatch is
    dropped.
    """
    if (found := missed_microbatch(run, member, report)) is None:
        run.totals.unfit += 1
        return
    name, unread = report.name, run.current.unproven.get(member.hotkey, 0) >= MAX_LOOKS
    if not is_stored(run, *found, name):
        if deny(run, member, *found, [name]):
            return
        told = f"it said once too often that a frame which it has acknowledged cannot be used: {name}"
    elif unread or looked.get(name) in (Finding.SOUND, Finding.LARGE):
        told = f"it said that frame {name} cannot be used, which is there and right"
    else:
        _lose_frame(run, found, name, looked.get(name, Finding.ABSENT))
        return
    _is_unproven(run, member, f"{told}, {_COST}")
    withdraw(run, member, Withdrawal.WORD)
    move(run, *found, member.stage, why=f"{member.hotkey} does not use frame {name}")


def take_bad_value(run: RunState, member: Member, report: BadValue, looked: Findings) -> None:
    """Handle a replica's report that its op gives NaN or Inf.

    An input that it alone has is to come through the store first, and the word is to be said again then.
    An incoming frame that holds it is its sender's fault, and one with values that are too large is remade at
    nobody's cost. Where the frames are finite, the word stands in the
    epoch's record, and another replica does the work; after it said the same, or where there is none, the
    microbatch is dropped.
    """
    if (found := bad_microbatch(run, member, report)) is None:
        run.totals.unfit += 1
        return
    step, mb = found
    if unstored := unstored_inputs(run, member, step, mb):
        if not deny(run, member, step, mb, unstored):
            told = f"it said once too often that frames which it has acknowledged give NaN: {unstored[0]}"
            _is_unproven(run, member, f"{told}, {_COST}")
            withdraw(run, member, Withdrawal.WORD)
            move(run, step, mb, member.stage, why=told)
        return
    given = [event.notice for event in _inputs(run, member, step, mb)]
    for notice in given:
        finding = looked.get(notice.name, Finding.SOUND)
        if finding is not Finding.SOUND:
            _lose_frame(run, found, notice.name, finding)
            if mb.ended is None:  # the speaker has given it up, so that it goes to another here as well
                move(run, step, mb, member.stage, why="a frame was bad and no other replica can go on")
            return
    told = f"NaN or Inf at stage {member.stage} ({member.hotkey}), from finite frames"
    epoch, at = run.current, (step.number, mb.index, member.stage)
    attempt, said = mb.places[member.stage].attempt, epoch.words.get(member.hotkey, ())
    stands = len(said) < MAX_WORDS
    cost = "which stands in the epoch's record" if stands else f"once too often, {_COST}"
    _is_unproven(run, member, f"step {step.number} microbatch {mb.index}: {told}, {cost}")
    if stands:
        word = Word(
            hotkey=member.hotkey,
            stage=member.stage,
            epoch=run.epoch,
            step=step.number,
            microbatch=mb.index,
            attempt=attempt,
            inputs=tuple(given),
            signature=report.signature,
        )
        epoch.words[member.hotkey] = (*said, word)
    else:
        withdraw(run, member, Withdrawal.WORD)
    again = at in epoch.doubted
    epoch.doubted.add(at)
    if again:
        drop(run, step, mb, told)
    else:
        move(run, step, mb, member.stage, why=told)


def _inputs(run: RunState, member: Member, step: PlannedStep, mb: MicrobatchState) -> list[FrameReady]:
    """The delivered frames that go into the member's ops on a microbatch: activations, then gradient."""
    return [
        delivered_frame(run, step, mb, stage, direction)
        for stage, direction in input_places(run, member)
        if mb.places[stage].frame(direction) is not None
    ]


def _lose_frame(
    run: RunState, found: tuple[PlannedStep, MicrobatchState], name: FrameName, finding: Finding
) -> None:
    """Have another replica make a frame that cannot be used; drop the microbatch where there is none.

    It is its sender's fault, or that of the store, which had it when it was announced, or of a model that
    diverges.
    """
    step, mb = found
    sender = run.members[delivered_frame(run, step, mb, name.stage, name.direction).sender]
    if finding in _TOLD:
        run.incidents.named.append(f"{sender.hotkey} {_TOLD[finding]}: frame {name}")
        sender.history.happened(run.now, run.epoch, f"it {_TOLD[finding]}: frame {name}, {_COST}")
        withdraw(run, sender, Withdrawal.FRAME)
    elif finding is Finding.LARGE:
        run.incidents.named.append(f"frame {name} of {sender.hotkey} holds values that are too large")
    else:
        run.incidents.named.append(f"the object store lost frame {name} of {sender.hotkey}")
    mb.places[name.stage].store(name.direction, None)
    move(run, step, mb, name.stage, why="a frame is gone and no other replica can make it again")


def _is_unproven(run: RunState, member: Member, told: str) -> None:
    """Count a word that the frames do not bear out."""
    run.current.unproven[member.hotkey] = run.current.unproven.get(member.hotkey, 0) + 1
    run.incidents.named.append(f"epoch {run.epoch}: {member.hotkey}: {told}")
    member.history.happened(run.now, run.epoch, told)
