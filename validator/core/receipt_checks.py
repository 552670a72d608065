"""Checks of commitments against each other and against states, without a replay."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import Commitment, Receipt
from validator.core.results import MinerFault
from validator.core.sealed import SealedEpoch

MOVING_NORM: Final = 1e-3
"""L2 norm of a gradient that no optimizer's update loses in rounding. A neighbour can send less, or zeros."""


def false_commit(sealed: SealedEpoch, hotkey: str) -> MinerFault | None:
    """The first COMMIT, in any life, that the record or the others refute.

    A life begins with the base: the roots of its weights and of the base's momentum give the base's digest.
    STEPs with a gradient move the weights.
    """
    base = sealed.base(sealed.miners[hotkey].stage)
    for life in sealed.miners[hotkey].lives:
        commits = [receipt for receipt in sealed.commits(hotkey, life) if receipt.commitment is not None]
        if commits and base is not None:
            found = _of(commits[0]).base or EMPTY
            if found != base.digest:
                reason = "it committed to other weights than those of the base, where it began with them"
                return MinerFault(hotkey, commits[0].seq, reason, expected=base.digest, found=found)
        for start, end in pairwise(commits):
            moved = any(_moves(sealed, hotkey, step) for step in range(start.version, end.version))
            if moved and _of(start).weights == _of(end).weights:
                reason = (
                    f"its weights of version {end.version} are those of version {start.version}, though STEPs"
                    " between have a gradient"
                )
                return MinerFault(hotkey, end.seq, reason, found=_of(end).weights)
    return None


def _moves(sealed: SealedEpoch, hotkey: str, step: int) -> bool:
    """Whether a STEP must have changed the weights, by the gradient that its receipt says.

    One that says none may be a lie, or due to a neighbour that sent none: its segment shows which.
    """
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


def check_carried(hotkey: str, commit: Receipt, last: Receipt | None, fresh: str) -> bool:
    """Compare the moments that a replica began an epoch with to its last COMMIT of the epoch before.

    Zero moments are right too: the replica may have lost its state and begun from the base alone.

    Args:
        commit: its first COMMIT of the epoch.
        last: its last COMMIT of the epoch before; None if it did not end that.
        fresh: root of zero moments.

    Returns whether it carried any. Raises MinerFault if they are neither.
    """
    found = _of(commit).moments
    if found in (fresh, EMPTY):
        return False
    if last is not None and found == _of(last).moments:
        return True
    reason = "the moments that it began the epoch with are not those it ended the last one with"
    expected = fresh if last is None else _of(last).moments
    raise MinerFault(hotkey, commit.seq, reason, expected=expected, found=found)
