"""The held-out loss of an epoch's base, from the sealed record alone. Pure."""

from __future__ import annotations

from iota.protocol.heldout import BaseLoss, base_loss
from iota.protocol.receipts import OpKind
from validator.core.sealed import SealedEpoch


def heldout_of(sealed: SealedEpoch) -> BaseLoss | None:
    """The loss of the base that the epoch began with, by the EVALs that count; None where none does.

    Everyone with the record gets the same. Which EVALs are true the audits show, as of any op.
    """
    losses = []
    for done in sealed.record.heldout:
        attempt = done.attempts[-1]
        miner = sealed.owner(0, done.microbatch, attempt, sealed.spec.last_stage)
        found = sealed.receipt(miner or "", 0, done.microbatch, attempt, OpKind.EVAL)
        if found is not None and found.loss is not None:
            losses.append(found.loss)
    return base_loss(losses, sealed.spec.data.tokens)
