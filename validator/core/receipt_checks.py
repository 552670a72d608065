"""Checks of commitments against each other and against states, without a replay."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from iota.model.layout import run_shapes
from iota.model.moment_layout import moment_bytes
from iota.protocol.merkle import EMPTY, zeros_root
from iota.protocol.receipts import Commitment, Receipt
from iota.protocol.records import LifeRecord
from iota.spec import RunSpec
from validator.core.results import MinerFault
from validator.core.sealed import SealedEpoch

MOVING_NORM: Final = 1e-3
"""L2 norm of a gradient that no optimizer's update loses in rounding. A neighbour can send less, or zeros."""

_FP32: Final = 4
"""A part of moments has the bytes of so many elements (`iota.compute.commitment`)."""


def false_commit(sealed: SealedEpoch, hotkey: str) -> MinerFault | None:
    """The first COMMIT, in any life, that the record or the others refute.

    A life begins with the base: the roots of its weights and of the base's momentum give the base's digest.
    One that may have begun with its own start is held to that by who has fetched what it is made of. Its
    moments and its error feedback are zero, or those that the record has it carry. STEPs with a gradient move
    the weights. A void life is held to nothing, since nothing of it counts.
    """
    anchor = sealed.anchor(sealed.miners[hotkey].stage)
    for life in sealed.miners[hotkey].lives:
        if life.void:
            continue
        commits = [receipt for receipt in sealed.commits(hotkey, life) if receipt.commitment is not None]
        if commits and anchor is not None and not life.began:
            found = _of(commits[0]).base or EMPTY
            if found != anchor.digest:
                reason = "it committed to other weights than those of the base, where it began with them"
                return MinerFault(hotkey, commits[0].seq, reason, expected=anchor.digest, found=found)
        if commits and (fault := _false_moments(sealed, hotkey, life, commits[0])) is not None:
            return fault
        if commits and (fault := _false_feedback(sealed, hotkey, life, commits[0])) is not None:
            return fault
        for start, end in pairwise(commits):
            moved = any(_moves(sealed, hotkey, step) for step in range(start.version, end.version))
            if moved and _of(start).weights == _of(end).weights:
                reason = (
                    f"its weights of version {end.version} are those of version {start.version}, though STEPs"
                    " between have a gradient"
                )
                return MinerFault(hotkey, end.seq, reason, found=_of(end).weights)
    return None


def begins_with(sealed: SealedEpoch, hotkey: str, life: LifeRecord) -> str | None:
    """Root of the moments that a life may have carried over; None for zero ones, as after the base anew.

    One whose pseudo-gradient was not merged has none either: that seal need not hold its last COMMIT.
    """
    return sealed.miners[hotkey].moments if _carries(sealed, hotkey, life) else None


def _carries(sealed: SealedEpoch, hotkey: str, life: LifeRecord) -> bool:
    """Whether a life may go on with moments and error feedback; with overlap by its own start alone."""
    own = bool(life.began) or not sealed.spec.overlaps
    return own and life is sealed.miners[hotkey].lives[0]


def zero_moments_root(spec: RunSpec, stage: int) -> str:
    """Root of the moments of a replica that begins with a base alone."""
    size = moment_bytes(spec.optimizer, run_shapes(spec, stage))
    return zeros_root(size, _FP32 * spec.outer.part_elements)


def _false_moments(sealed: SealedEpoch, hotkey: str, life: LifeRecord, first: Receipt) -> MinerFault | None:
    """Zero moments are right too where it carries any: it may have lost its state."""
    found, carried = _of(first).moments, begins_with(sealed, hotkey, life)
    zero = zero_moments_root(sealed.spec, sealed.miners[hotkey].stage)
    if found in (zero, carried):
        return None
    reason = "the moments that it began the epoch with are not those it ended the last one with"
    return MinerFault(hotkey, first.seq, reason, expected=carried or zero, found=found)


def _false_feedback(sealed: SealedEpoch, hotkey: str, life: LifeRecord, first: Receipt) -> MinerFault | None:
    """None is right too where it has any: it may have lost its disk."""
    miner, found = sealed.miners[hotkey], _of(first).feedback
    carried = miner.feedback if _carries(sealed, hotkey, life) else None
    if found in (EMPTY, carried):
        return None
    reason = "the error feedback that it began the epoch with is not what it ended the last one with"
    return MinerFault(hotkey, first.seq, reason, expected=carried or EMPTY, found=found)


def _moves(sealed: SealedEpoch, hotkey: str, step: int) -> bool:
    """Whether a STEP must have changed the weights, by the gradient that its receipt says.

    One that says none may be a lie, or due to a neighbour that sent none: its segment shows which. Where
    weights are rounded stochastically an update may leave all as they were, and the segment alone tells.
    """
    if sealed.spec.precision.holds_bf16:
        return False
    receipt = sealed.step_receipt(hotkey, step)
    if receipt is None or receipt.update is None or not sealed.counted(hotkey, step):
        return False
    return receipt.update.gradient_norm >= MOVING_NORM and sealed.learning_rate(step) > 0


def _of(commit: Receipt) -> Commitment:
    assert commit.commitment is not None
    return commit.commitment


# ---- states ------------------------------------------------------------------------------------


def check_committed(hotkey: str, commit: Receipt, found: Commitment, *, whole: bool) -> None:
    """Compare the roots of a state that a miner delivered with those of its COMMIT.

    Args:
        whole: False compares the weights alone, which is all that an op needs.

    Raises MinerFault if they differ.
    """
    said = _of(commit)
    groups = [("weights", said.weights, found.weights)]
    if whole:
        groups += [
            ("moments", said.moments, found.moments),
            ("weights of the version before", said.before, found.before),
        ]
    for what, expected, given in groups:
        if given != expected:
            reason = (
                f"the {what} that it delivered for version {commit.version} are not those it committed to"
            )
            raise MinerFault(hotkey, commit.seq, reason, expected=expected, found=given)
