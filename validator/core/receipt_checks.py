"""Checks of signed STEPs against states, without a replay: steps without effect, uncommitted states."""

from __future__ import annotations

from iota.protocol.receipts import Receipt
from validator.core.results import MinerFault
from validator.core.sealed import SealedEpoch


def stalled_step(sealed: SealedEpoch, hotkey: str, base_digest: str) -> MinerFault | None:
    """The first STEP, in any life, that counts microbatches and yet leaves the weights unchanged.

    Args:
        base_digest: digest of the weights that its lives began with; empty if they are unavailable.
    """
    for life in sealed.miners[hotkey].lives:
        before = base_digest
        for step in sealed.steps_of(hotkey, life):
            receipt = sealed.step_receipt(hotkey, step)
            assert receipt is not None
            if receipt.state is None:
                break  # a fault of its form, which is found without the base
            moved = bool(sealed.counted(hotkey, step)) and sealed.learning_rate(step) > 0
            if moved and receipt.state.weights == before:
                reason = f"STEP {step} left the weights as they were, though it counts microbatches"
                return MinerFault(hotkey, receipt.seq, reason, found=before)
            before = receipt.state.weights
    return None


# ---- states ------------------------------------------------------------------------------------


def check_committed(hotkey: str, step: Receipt, weights: str, moments: str | None) -> None:
    """Compare a snapshot's digests with the STEP receipt of its version.

    Args:
        moments: None if the audit needs no moments.

    Raises MinerFault if they differ.
    """
    committed = step.state
    if committed is None:
        raise MinerFault(hotkey, step.seq, "the STEP receipt commits to no state")
    for what, expected, found in (
        ("weights", committed.weights, weights),
        ("moments", committed.moments, moments),
    ):
        if found is not None and found != expected:
            reason = f"the {what} it delivers are not those of its STEP receipt"
            raise MinerFault(hotkey, step.seq, reason, expected=expected, found=found)


def check_carried(hotkey: str, last: Receipt, moments: str, fresh: str) -> None:
    """Compare the moments that a replica began an epoch with to its last STEP of the epoch before.

    Args:
        moments: digest of the moments that it delivered.
        fresh: digest of zero moments, which are right too: the replica may have reloaded its base.

    Raises MinerFault if they are neither.
    """
    assert last.state is not None
    if moments not in (last.state.moments, fresh):
        reason = "the moments that it began the epoch with are not those it ended the last one with"
        raise MinerFault(hotkey, last.seq, reason, expected=last.state.moments, found=moments)
