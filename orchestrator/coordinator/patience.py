"""How long a stage's pseudo-gradients are waited for: who was slow before has less time.

Once a quorum is there, the others have a multiple of the time that it took. Who comes long after it, or not
at all, has a smaller multiple in the next epochs, whichever of its owner's workers it is: one that is slow on
purpose holds up one epoch in so many. Nobody has less than its bytes take on the slowest line that a miner
may have, so that those who are quick do not shut out others by it.
"""

from __future__ import annotations

from typing import Final

from iota.console.counts import counted
from orchestrator.coordinator.epoch_state import StageMerge
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import RunState

ENCODED_A_SECOND: Final = 1e8
"""Bytes of fp32 that a replica encodes a second, at the least: one slow core does six times as many
(`scripts/bench_outer.py`)."""
PATIENT: Final = (20.0, 10.0)
"""Seconds, and times what the quorum took: the longer one bounds the wait for who was not slow of late."""
SHORT: Final = (5.0, 3.0)
"""The same of the wait for who was, which nobody's is shorter than."""
SLOW_EPOCHS: Final = 8
"""So many epochs an owner counts as slow."""
_ROOM: Final = 2.0
"""Times that a pseudo-gradient takes on the slowest line: what a wait for it lasts at the least."""


def sent_s(run: RunState, stage: int) -> float:
    """Seconds in which a replica encodes and stores a stage's pseudo-gradient on the slowest line."""
    encode_s = sum(run.part_bytes[stage]) / ENCODED_A_SECOND if run.spec.outer.codec.has_feedback else 0.0
    return encode_s + sum(run.delta_bytes[stage]) / run.spec.audit.line


def delta_limit_s(run: RunState, stage: int) -> float:
    """How long a stage's pseudo-gradients are waited for: as measured, and at least as their size demands.

    Who restarted from its disk repeats its epoch first, if it was not slow of late.
    """
    epoch = run.merging_epoch()
    merge = epoch.merges[stage]
    awaited = [run.members[hotkey] for hotkey in merge.awaited]
    replay_s = max((member.replay_s for member in awaited), default=0.0)
    full = replay_s + max(run.deadlines.merge.seconds, sent_s(run, stage))
    if merge.quorum_s is None:
        return full
    short = _limit_s(run, stage, merge.quorum_s, SHORT)
    if all(is_slow(run, member) for member in awaited):
        return short
    return max(short, min(full, replay_s + _limit_s(run, stage, merge.quorum_s, PATIENT)))


def may_be_late(run: RunState, merge: StageMerge) -> bool:
    """Whether the wait may be over, without a look at each member as in `delta_limit_s`."""
    if merge.quorum_s is None:
        return run.now > merge.since + run.deadlines.merge.seconds
    return run.now > merge.since + max(SHORT[0], SHORT[1] * merge.quorum_s)


def note_given(run: RunState, member: Member) -> None:
    """A member's pseudo-gradient is there: it makes the quorum, or comes after it, perhaps long after."""
    merge = run.merging_epoch().merges[member.stage]
    taken = run.now - merge.since
    if merge.quorum_s is None:
        if len(merge.deltas) >= len(merge.owing):
            merge.quorum_s = taken
    elif taken > _limit_s(run, member.stage, merge.quorum_s, SHORT):
        note_slow(run, member)


def is_slow(run: RunState, member: Member) -> bool:
    """Whether the merge that is under way, or comes next, waits shortly for the member's owner."""
    merging = run.epoch if run.merging is None else run.merging
    return run.slow_givers.get(member.owner, -1) >= merging


def note_slow(run: RunState, member: Member) -> None:
    """The member's owner is waited for shortly in the next epochs."""
    epoch = run.merging_epoch().epoch
    if run.slow_givers.get(member.owner, -1) <= epoch:
        epochs = counted(SLOW_EPOCHS, "epoch")
        told = f"it ended its epoch long after others: for {epochs} nobody waits long for its owner's workers"
        member.history.happened(run.now, epoch, told)
    run.slow_givers[member.owner] = epoch + SLOW_EPOCHS


def _limit_s(run: RunState, stage: int, quorum_s: float, patience: tuple[float, float]) -> float:
    least, times = patience
    return max(least, times * quorum_s, _ROOM * sent_s(run, stage))
