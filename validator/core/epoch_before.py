"""What an epoch's lives may begin with, by the record of the epoch before. Pure.

The record of the epoch before decides it, and not the one under audit: else the orchestrator could admit a
miner with what it has, and seal something else, so that its first COMMIT would look like its own lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from iota.protocol.receipts import Commitment
from iota.protocol.records import DeltaRecord, EpochRecord, MinerRecord
from iota.spec import RunSpec, StateRule
from validator.core.record_checks import SealBroken
from validator.core.sealed import SealedEpoch


class Ended(NamedTuple):
    """What a life's last COMMIT of an epoch may carry into the next one, as roots."""

    moments: str
    feedback: str


@dataclass(frozen=True)
class EpochBefore:
    """What miners may begin an epoch with. Nothing is given for the first epoch of a run."""

    ended: Mapping[str, frozenset[Ended]] = field(default_factory=dict)
    """Contributor to the merges, with overlap any miner -> what its lives ended the epoch before with."""
    merged: Mapping[str, DeltaRecord] = field(default_factory=dict)
    """Miner whose pseudo-gradient is in every part of its stage's merge, or goes against the others -> it."""


def epoch_before(sealed: SealedEpoch) -> EpochBefore:
    """What the epoch after `sealed` may begin with."""
    last, ended = sealed.spec.schedule.steps, {}
    contributors = {delta.miner for delta in sealed.record.deltas}
    # With overlap a miner is admitted before it is known whether its contribution is merged.
    for hotkey in sealed.miners.keys() if sealed.spec.overlaps else contributors:
        lives = (sealed.commits(hotkey, life) for life in sealed.miners[hotkey].lives)
        made = (c[-1].commitment for c in lives if c and c[-1].version == last)
        ended[hotkey] = frozenset(_ended(end) for end in made if end is not None)
    left_out = {each.miner for each in sealed.record.left_out if not each.why.is_sound}
    merged = {delta.miner: delta for delta in sealed.record.deltas if delta.miner not in left_out}
    return EpochBefore(ended, merged)


def _ended(commitment: Commitment) -> Ended:
    return Ended(commitment.moments, commitment.feedback)


def check_follows(spec: RunSpec, record: EpochRecord, before: EpochBefore) -> None:
    """Raise SealBroken unless a record gives each miner what it ended the epoch before with, and no other."""
    overlaps = spec.overlaps
    for miner in record.miners:
        whole = _merged(before, miner) is not None
        if overlaps:
            _check_own_start(miner, before)
        if spec.optimizer.state is StateRule.CARRY:
            _check_carried(miner, before, "moments", needed=whole or not overlaps)
        if spec.outer.codec.has_feedback:
            _check_carried(miner, before, "feedback", needed=whole or not overlaps)


def _check_carried(miner: MinerRecord, before: EpochBefore, what: str, *, needed: bool) -> None:
    """`needed` says whether a contributor must carry it; one whose life was taken begins with none."""
    known, named = before.ended.get(miner.hotkey), getattr(miner, what)
    if needed and named is None and known is not None:
        told = f"contributed to the last merge, and the record has it carry no {what}"
        raise SealBroken(f"{miner.hotkey} {told}")
    if named is not None and named not in {getattr(end, what) for end in known or ()}:
        raise SealBroken(f"{miner.hotkey} did not end the epoch before with the {what} named")


def _check_own_start(miner: MinerRecord, before: EpochBefore) -> None:
    given, first = _merged(before, miner), miner.lives[0]
    if first.began != (() if given is None else given.parts):
        told = "begins with another pseudo-gradient than the last merge has of it"
        raise SealBroken(f"{miner.hotkey} {told}, by the records of both epochs")
    if first.void and given is not None:
        told = "loses its life, though its pseudo-gradient is in the last merge"
        raise SealBroken(f"{miner.hotkey} {told}, by the records of both epochs")


def _merged(before: EpochBefore, miner: MinerRecord) -> DeltaRecord | None:
    """What the last merge has of a miner; None too of one that was of another stage."""
    found = before.merged.get(miner.hotkey)
    return found if found is not None and found.stage == miner.stage else None
