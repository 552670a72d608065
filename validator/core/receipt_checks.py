"""Checks of signed receipts that need no replay: wrong inputs, steps without effect, uncommitted states."""

from __future__ import annotations

from pydantic import ValidationError

from iota.protocol.messages import Direction
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import RunSpec
from iota.wire.frame import FrameHeader, is_signed
from validator.core.results import MinerFault
from validator.core.sealed import SealedEpoch


def stalled_step(sealed: SealedEpoch, hotkey: str, base_digest: str) -> MinerFault | None:
    """The first STEP that commits to no state, or counts microbatches and yet leaves the weights unchanged.

    Args:
        base_digest: digest of the weights that the miner joined with; empty if they are unavailable.
    """
    before = base_digest
    for step in sealed.steps(hotkey):
        receipt = sealed.step_receipt(hotkey, step)
        assert receipt is not None
        if receipt.state is None:
            return MinerFault(hotkey, receipt.seq, "its STEP receipt commits to no state")
        moved = bool(sealed.counted(hotkey, step)) and sealed.learning_rate(step) > 0
        if moved and receipt.state.weights == before:
            reason = f"STEP {step} left the weights as they were, though it counts microbatches"
            return MinerFault(hotkey, receipt.seq, reason, found=before)
        before = receipt.state.weights
    return None


# ---- inputs ------------------------------------------------------------------------------------


def named_inputs(spec: RunSpec, hotkey: str, receipt: Receipt) -> list[FrameHeader]:
    """Headers of the input frames that a receipt names, in order: activations, then gradient.

    Raises MinerFault if they are not the inputs of its op, or one is not signed by its sender.
    """
    wanted = []
    if receipt.stage > 0:
        wanted.append((receipt.stage - 1, Direction.FORWARD))
    if receipt.kind is OpKind.BACKWARD:
        wanted.append((receipt.stage + 1, Direction.BACKWARD))
    found: list[FrameHeader] = []
    for signed in receipt.inputs:
        try:
            header = FrameHeader.model_validate_json(signed.header)
        except ValidationError:
            raise MinerFault(hotkey, receipt.seq, "its receipt names an input that is no frame") from None
        if not is_signed(signed.header.encode(), bytes.fromhex(signed.signature), header.sender):
            raise MinerFault(hotkey, receipt.seq, "its receipt names an input that its sender did not sign")
        found.append(header)
    if [(header.name.stage, header.name.direction) for header in found] != wanted:
        raise MinerFault(hotkey, receipt.seq, "its receipt names other inputs than its op has")
    microbatch = (receipt.epoch, receipt.step, receipt.microbatch)
    for header in found:
        name = header.name
        if (name.epoch, name.step, name.microbatch) != microbatch or header.run != spec.id:
            raise MinerFault(hotkey, receipt.seq, "its receipt names an input of another microbatch")
    return found


def check_sender(
    sealed: SealedEpoch, hotkey: str, receipt: Receipt, header: FrameHeader
) -> MinerFault | None:
    """The fault of an input's sender, if it receipted another payload than it sent.

    Raises MinerFault, of the receiver, if it took the input from a miner without that assignment.
    """
    name = header.name
    if sealed.owner(name.step, name.microbatch, name.attempt, name.stage) != header.sender:
        raise MinerFault(hotkey, receipt.seq, f"its input came from {header.sender}, who had no part in it")
    if name.direction is Direction.FORWARD:
        kind = OpKind.FORWARD
    else:
        kind = OpKind.LOSS if name.stage == sealed.spec.last_stage else OpKind.BACKWARD
    sent = sealed.receipt(header.sender, name.step, name.microbatch, name.attempt, kind)
    # Without a receipt there is nothing to compare; the signed header shows that the receiver did no wrong.
    if sent is None or sent.output == header.payload:
        return None
    reason = "it sent another frame than it receipted"
    return MinerFault(header.sender, sent.seq, reason, expected=sent.output, found=header.payload)


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
