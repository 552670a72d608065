"""Checks a batch of receipts: its signature, its chain, and that each receipt is possible for the member."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from iota.console.counts import counted
from iota.identity.signatures import signing_bytes
from iota.protocol.messages import Role
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import (
    MAX_LOSS,
    RECEIPTS_DOMAIN,
    OpKind,
    Receipt,
    ReceiptBatch,
    counted_digest,
    signed_payload,
)
from orchestrator.coordinator import Member
from orchestrator.coordinator.epoch_state import counted_pairs
from orchestrator.coordinator.state import RunState


def new_receipts(
    run: RunState, member: Member, batch: ReceiptBatch, verify: Callable[[bytes, bytes, str], bool]
) -> tuple[Receipt, ...]:
    """The receipts of a batch that are not stored yet; none where earlier ones are missing.

    Raises:
        Problem: BAD_RECEIPTS where they are not consecutive, of another chain, or impossible for this member;
            BAD_SIGNATURE where they are not signed by it.
    """
    receipts = batch.receipts
    if not receipts or receipts[0].seq > member.receipts + 1 or receipts[-1].seq <= member.receipts:
        return ()  # before any digest: such a batch changes nothing, so it could be sent for ever
    message = signing_bytes(
        RECEIPTS_DOMAIN, signed_payload(run.spec.id, member.hotkey, receipts[-1].content_digest())
    )
    if not verify(message, bytes.fromhex(batch.signature), member.hotkey):
        raise Problem(
            ProblemType.BAD_SIGNATURE, "the batch's signature is not over the last receipt's digest"
        )
    for receipt in receipts:
        if fault := _fault(run, member, receipt):
            raise Problem(ProblemType.BAD_RECEIPTS, f"receipt {receipt.seq} {fault}")
    for before, after in pairwise(receipts):
        if after.seq != before.seq + 1 or after.previous != before.content_digest():
            raise Problem(ProblemType.BAD_RECEIPTS, f"receipt {after.seq} does not follow {before.seq}")
        if after.epoch < before.epoch:
            raise _of_the_past(after)
    fresh = receipts[max(0, member.receipts + 1 - receipts[0].seq) :]
    if fresh[0].previous != member.head:
        raise Problem(
            ProblemType.BAD_RECEIPTS,
            f"receipt {fresh[0].seq} continues another chain than the"
            f" {counted(member.receipts, 'receipt')} stored here",
            extra={"receipts": member.receipts, "head": member.head},
        )
    if fresh[0].epoch < member.receipt_epoch:
        raise _of_the_past(fresh[0])
    return fresh


def _fault(run: RunState, member: Member, receipt: Receipt) -> str | None:
    """The reason why no op of this member can give such a receipt, or None."""
    if member.role is not Role.MINER:
        return "is not from a miner: only miners run ops"
    if receipt.kind is OpKind.MERGE:
        return "is of a merge, which is checked by its copies and has no receipt"
    if receipt.stage != member.stage:
        return f"is of stage {receipt.stage}, yours is {member.stage}"
    if receipt.epoch > run.epoch:
        return f"is of epoch {receipt.epoch}, which has not begun"
    if not 0 < receipt.started <= receipt.ended:
        return "ended before it started: set the machine's clock"
    if receipt.loss is not None:
        if receipt.kind is not OpKind.LOSS or receipt.stage != run.spec.last_stage:
            return "names a loss, which only a LOSS of the last stage has"
        if not 0 <= receipt.loss <= MAX_LOSS:
            return f"names a loss of {receipt.loss:g}: at least 0 and at most {MAX_LOSS:g} nats a token"
    return _step_fault(run, member, receipt) if receipt.kind is OpKind.STEP else None


def _step_fault(run: RunState, member: Member, receipt: Receipt) -> str | None:
    """The reason why a STEP is not the one that the step's close asked for, or None.

    A STEP of a sealed epoch belongs to no seal any more, so its list is not looked for.
    """
    epoch, what = run.epochs.get(receipt.epoch), f"is of STEP {receipt.step} of epoch {receipt.epoch}, which"
    if receipt.state is None:
        return f"{what} has no state"
    if epoch is None or epoch.seal is not None:
        return None
    if receipt.step >= epoch.closed_steps:
        return f"{what} is not closed"
    step = epoch.steps[receipt.step]
    told = counted_digest(counted_pairs(step.order.get(member.hotkey, bytearray())))
    if receipt.state.counted != told:
        return f"{what} counts the list {told[:16]} by its close, not {receipt.state.counted[:16]}"
    if receipt.state.learning_rate != step.learning_rate:
        return f"{what} has the learning rate {step.learning_rate:g}, not {receipt.state.learning_rate:g}"
    return None


def _of_the_past(receipt: Receipt) -> Problem:
    return Problem(
        ProblemType.BAD_RECEIPTS,
        f"receipt {receipt.seq} is of epoch {receipt.epoch}, which the receipts before it have left",
    )
